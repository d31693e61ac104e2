//! Which expert each token goes to, and the order in which the experts find their tokens.
//!
//! A token has k slots, one for each of its choices: slot `token·k + j`. The slots sorted by expert, and in the order of the tokens
//! within each expert, are the rows that the experts work on, so that each of them does one matrix product over adjacent rows.

use std::cmp::Ordering;
use std::ops::Range;

use crate::Result;
use crate::ops::shape_error;
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
        let experts = scores.shape().cols();
        if top_k == 0 || top_k > experts {
            return Err(shape_error("routing", "scores", scores, format!("[.., E] with E ≥ k and k = {top_k} ≥ 1")));
        }
        let mut choices = Vec::with_capacity(scores.shape().rows() * top_k);
        with_float!("routing", scores.dtype(), F => {
            for row in scores.data::<F>()?.chunks_exact(experts) {
                let begin = choices.len();
                for _ in 0..top_k {
                    let free = (0..experts as u32).filter(|e| !choices[begin..].contains(e));
                    choices.extend(free.reduce(|best, e| if beats(row[e as usize], row[best as usize]) { e } else { best }));
                }
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

    #[test]
    fn more_choices_than_experts_are_refused() {
        let message = Routing::choose(&random_f32([2, 3], 1), 4).unwrap_err().to_string();
        assert_eq!(message, "routing: `scores` has shape [2, 3], expected [.., E] with E ≥ k and k = 4 ≥ 1");
        assert!(Routing::choose(&random_f32([2, 3], 1), 0).is_err());
    }
}
