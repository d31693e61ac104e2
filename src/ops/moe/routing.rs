//! Which expert each token goes to, and the order in which the experts find their tokens.
//!
//! A token has k slots, one for each of its choices: slot `token·k + j`. The slots sorted by expert, and in the order of the tokens
//! within each expert, are the rows that the experts work on, so that each of them does one matrix product over adjacent rows.

use std::cmp::Ordering;
use std::ops::Range;

use crate::Result;
use crate::ops::{expect_shape, shape_error};
use crate::tensor::{Float, Tensor};
use crate::with_float;

/// The choices of N tokens, k each, among E experts, and the sorting permutation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    top_k: usize,
    choices: Vec<u32>,
    offsets: Vec<usize>,
    slot_of_row: Vec<u32>,
    row_of_slot: Vec<u32>,
}

impl Routing {
    /// Each token's `top_k` best `scores` `[.., E]`, the best first; ties go to the lowest index, and NaN comes last.
    pub fn choose(scores: &Tensor, top_k: usize) -> Result<Self> {
        Self::choose_within(scores, None, top_k, [1, 1])
    }

    /// The same by the scores plus `correction` `[E]`, within the best groups (DeepSeek-V3, arXiv 2412.19437, section 2.1.2): the
    /// experts, divided evenly into `groups`, are ranked by the sum of a group's two best corrected scores, and all but the best
    /// `top_groups` are left out.
    ///
    /// An error where the kept groups have fewer than `top_k` experts.
    pub fn choose_within(
        scores: &Tensor,
        correction: Option<&Tensor>,
        top_k: usize,
        [groups, top_groups]: [usize; 2],
    ) -> Result<Self> {
        let experts = scores.shape().cols();
        if groups == 0 || !experts.is_multiple_of(groups) || top_groups > groups {
            let expected = format!("[.., E] with E a multiple of {groups} groups, of which {top_groups} are kept");
            return Err(shape_error("routing", "scores", scores, expected));
        }
        let group = experts / groups;
        if top_k == 0 || top_k > top_groups * group {
            let expected = match groups {
                1 => format!("[.., E] with E ≥ k and k = {top_k} ≥ 1"),
                _ => format!("[.., E] with E·{top_groups}/{groups} ≥ k and k = {top_k} ≥ 1"),
            };
            return Err(shape_error("routing", "scores", scores, expected));
        }
        if let Some(correction) = correction {
            expect_shape("routing", "correction", correction, &[experts].into())?;
        }
        let correction = correction.map(Tensor::to_f64).transpose()?;
        let mut choices = Vec::with_capacity(scores.shape().rows() * top_k);
        with_float!("routing", scores.dtype(), F => {
            let mut corrected = vec![F::of(0.0); experts];
            let mut of_groups = vec![F::of(0.0); groups];
            let (mut two, mut kept) = (Vec::with_capacity(2), Vec::with_capacity(top_groups));
            for row in scores.data::<F>()?.chunks_exact(experts) {
                let mut row = row;
                if let Some(correction) = &correction {
                    corrected.iter_mut().zip(row).zip(correction).for_each(|((sum, &s), &c)| *sum = s + F::of(c));
                    row = &corrected;
                }
                let begin = choices.len();
                if top_groups == groups {
                    best(row, top_k, 0..experts as u32, begin, &mut choices);
                    continue;
                }
                for (of_group, row) in of_groups.iter_mut().zip(row.chunks_exact(group)) {
                    two.clear();
                    best(row, 2, 0..group as u32, 0, &mut two);
                    *of_group = two.iter().map(|&e| row[e as usize]).sum();
                }
                kept.clear();
                best(&of_groups, top_groups, 0..groups as u32, 0, &mut kept);
                let open = (0..experts as u32).filter(|&e| kept.contains(&(e / group as u32)));
                best(row, top_k, open, begin, &mut choices);
            }
            Ok(())
        })?;
        Ok(Self::sort(choices, top_k, experts))
    }

    /// Counting sort of the slots by their expert.
    fn sort(choices: Vec<u32>, top_k: usize, experts: usize) -> Self {
        let mut offsets = vec![0; experts + 1];
        for &e in &choices {
            offsets[e as usize + 1] += 1;
        }
        for e in 0..experts {
            offsets[e + 1] += offsets[e];
        }
        let mut next = offsets.clone();
        let (mut slot_of_row, mut row_of_slot) = (vec![0; choices.len()], vec![0; choices.len()]);
        for (slot, &e) in choices.iter().enumerate() {
            let row = next[e as usize];
            next[e as usize] += 1;
            slot_of_row[row] = slot as u32;
            row_of_slot[slot] = row as u32;
        }
        Self { top_k, choices, offsets, slot_of_row, row_of_slot }
    }

    /// Choices of each token, k.
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    /// Number of tokens, N.
    pub fn tokens(&self) -> usize {
        self.choices.len() / self.top_k
    }

    /// Number of experts, E.
    pub fn experts(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of slots, and of rows in expert order: N·k.
    pub fn slots(&self) -> usize {
        self.choices.len()
    }

    /// The chosen experts, `[N, k]`.
    pub fn choices(&self) -> &[u32] {
        &self.choices
    }

    /// Where each expert's rows begin, and where the last one's end, `[E + 1]`.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The rows of each expert, the first expert first.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.offsets.windows(2).map(|ends| ends[0]..ends[1])
    }

    /// How many slots chose each expert, `[E]`: the expert load.
    pub fn counts(&self) -> Vec<usize> {
        self.ranges().map(|rows| rows.len()).collect()
    }

    /// The slot that each row in expert order serves, `[N·k]`; its token is `slot / k`.
    pub fn slot_of_row(&self) -> &[u32] {
        &self.slot_of_row
    }

    /// The row in expert order of each slot, `[N, k]`.
    pub fn row_of_slot(&self) -> &[u32] {
        &self.row_of_slot
    }
}

/// Appends the indices of the `count` best `values` among `open`, or all of them, the best first, to `chosen`, whose elements before
/// `begin` are of no concern.
fn best<F: Float>(values: &[F], count: usize, open: impl Iterator<Item = u32> + Clone, begin: usize, chosen: &mut Vec<u32>) {
    for _ in 0..count {
        let free = open.clone().filter(|e| !chosen[begin..].contains(e));
        let best = free.reduce(|best, e| if beats(values[e as usize], values[best as usize]) { e } else { best });
        chosen.extend(best);
    }
}

/// Whether score `a` is better than `b`, NaN being worse than any number.
fn beats<F: Float>(a: F, b: F) -> bool {
    match a.partial_cmp(&b) {
        Some(order) => order == Ordering::Greater,
        None => b.is_nan() && !a.is_nan(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::random_f32;

    fn choose<const N: usize, const E: usize>(scores: [[f32; E]; N], k: usize) -> Routing {
        Routing::choose(&Tensor::new([N, E], scores.concat()).unwrap(), k).unwrap()
    }

    #[test]
    fn the_best_come_first_and_ties_go_to_the_lowest_index() {
        let routing = choose([[0.1, 0.6, 0.3], [0.2, 0.4, 0.4], [0.5, 0.5, 0.5]], 2);
        assert_eq!(routing.choices(), [1, 2, 1, 2, 0, 1]);
    }

    #[test]
    fn nan_comes_last_and_stays_deterministic() {
        let nan = f32::NAN;
        assert_eq!(choose([[nan, 0.1, nan, 0.2]], 3).choices(), [3, 1, 0]);
        assert_eq!(choose([[nan, nan, nan], [f32::NEG_INFINITY, nan, f32::INFINITY]], 2).choices(), [0, 1, 2, 0]);
    }

    #[test]
    fn rows_are_in_the_order_of_experts_then_tokens() {
        let routing = choose([[0.1, 0.6, 0.0, 0.3], [0.9, 0.05, 0.0, 0.05], [0.3, 0.6, 0.0, 0.1]], 2);
        assert_eq!(routing.choices(), [1, 3, 0, 1, 1, 0]);
        assert_eq!(routing.offsets(), [0, 2, 5, 5, 6]);
        assert_eq!(routing.counts(), [2, 3, 0, 1]);
        assert_eq!(routing.slot_of_row(), [2, 5, 0, 3, 4, 1]);
        assert_eq!(routing.row_of_slot(), [2, 5, 0, 3, 4, 1]);
    }

    #[test]
    fn the_two_permutations_are_inverse_and_stable() {
        for (n, e, k) in [(1, 1, 1), (17, 4, 2), (63, 5, 5), (511, 7, 3)] {
            let routing = Routing::choose(&random_f32([n, e], 1), k).unwrap();
            assert_eq!((routing.tokens(), routing.experts(), routing.slots()), (n, e, n * k));
            for (slot, &row) in routing.row_of_slot().iter().enumerate() {
                assert_eq!(routing.slot_of_row()[row as usize] as usize, slot);
            }
            for (expert, rows) in routing.ranges().enumerate() {
                let slots = &routing.slot_of_row()[rows];
                assert!(slots.is_sorted());
                assert!(slots.iter().all(|&slot| routing.choices()[slot as usize] as usize == expert));
            }
        }
    }

    /// One token.
    fn choose_within(scores: &[f32], correction: Option<Vec<f32>>, top_k: usize, groups: [usize; 2]) -> Vec<u32> {
        let correction = correction.map(|c| Tensor::new([c.len()], c).unwrap());
        let scores = Tensor::new([1, scores.len()], scores.to_vec()).unwrap();
        Routing::choose_within(&scores, correction.as_ref(), top_k, groups).unwrap().choices().to_vec()
    }

    #[test]
    fn a_correction_changes_the_choice() {
        let scores = [0.1, 0.6, 0.3, 0.5];
        assert_eq!(choose_within(&scores, None, 2, [1, 1]), [1, 3]);
        assert_eq!(choose_within(&scores, Some(vec![0.0, -0.4, 0.3, 0.0]), 2, [1, 1]), [2, 3]);
    }

    #[test]
    fn only_the_best_groups_are_open() {
        // By the two best: 1.0, 0.9, 1.1. The best single expert is in the worst group.
        let scores = [0.5, 0.5, 0.1, 0.9, 0.0, 0.0, 0.6, 0.0, 0.5];
        assert_eq!(choose_within(&scores, None, 3, [3, 1]), [6, 8, 7]);
        assert_eq!(choose_within(&scores, None, 4, [3, 2]), [6, 0, 1, 8]);
        assert_eq!(choose_within(&scores, None, 2, [3, 3]), [3, 6]);
        // A kept group's experts come before any other, also where they are negative.
        let correction = vec![0.0, 0.0, -5.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0];
        assert_eq!(choose_within(&scores, Some(correction), 3, [3, 1]), [0, 1, 2]);
        // Ties of groups go to the lowest, and a group of which too little is a number comes last.
        assert_eq!(choose_within(&[0.125, 0.375, 0.25, 0.25, 0.375, 0.125], None, 2, [3, 2]), [1, 2]);
        assert_eq!(choose_within(&[f32::NAN, 9.0, 0.25, 0.25, 0.375, 0.125], None, 2, [3, 1]), [2, 3]);
    }

    #[test]
    fn groups_that_do_not_fit_are_refused() {
        let error = |correction: usize, k, groups| {
            let correction = random_f32([correction], 2);
            Routing::choose_within(&random_f32([2, 6], 1), Some(&correction), k, groups).unwrap_err().to_string()
        };
        assert!(error(6, 1, [4, 1]).contains("a multiple of 4 groups"));
        assert!(error(6, 1, [0, 0]).contains("a multiple of 0 groups"));
        assert!(error(6, 1, [3, 4]).contains("of which 4 are kept"));
        assert!(error(6, 3, [3, 1]).contains("E·1/3 ≥ k and k = 3"));
        assert!(error(6, 1, [3, 0]).contains("E·0/3 ≥ k and k = 1"));
        assert!(error(5, 1, [3, 1]).contains("`correction` has shape [5], expected [6]"));
    }

    #[test]
    fn more_choices_than_experts_are_refused() {
        let message = Routing::choose(&random_f32([2, 3], 1), 4).unwrap_err().to_string();
        assert_eq!(message, "routing: `scores` has shape [2, 3], expected [.., E] with E ≥ k and k = 4 ≥ 1");
        assert!(Routing::choose(&random_f32([2, 3], 1), 0).is_err());
    }
}
