//! Learning the merges of byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) from counted words.
//!
//! Again and again the most frequent pair of neighbouring symbols becomes a symbol of its own; of equally frequent pairs the one
//! with the smaller ids comes first. The result is a function of the counts alone: no hash order, no thread shows in it.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet},
};

type Pair = (u32, u32);

/// What was learned: the vocabulary in the order of its ids, and the merges in the order of their ranks.
pub(super) struct Merges {
    pub vocab: Vec<String>,
    pub merges: Vec<(String, String)>,
}

/// Learns merges until `vocab` (special tokens and alphabet at first) has `vocab_size` entries or no pair is left. The words
/// consist of characters that are entries of `vocab`.
pub(super) fn learn(words: &HashMap<String, u64>, vocab: Vec<String>, vocab_size: usize) -> Merges {
    let mut ids: HashMap<String, u32> = vocab.iter().cloned().zip(0..).collect();
    let mut words = split(words, &ids);
    let mut learned = Merges { vocab, merges: Vec::new() };

    let mut counts: HashMap<Pair, i64> = HashMap::new();
    let mut places: HashMap<Pair, Vec<usize>> = HashMap::new();
    for (w, word) in words.iter().enumerate() {
        for pair in word.symbols.windows(2).map(|p| (p[0], p[1])) {
            *counts.entry(pair).or_default() += word.count;
            places.entry(pair).or_default().push(w);
        }
    }
    let mut queue: BinaryHeap<(i64, Reverse<Pair>)> = counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();

    let mut known: HashSet<Pair> = HashSet::new();
    while learned.vocab.len() < vocab_size
        && let Some((count, Reverse(pair))) = queue.pop()
    {
        let now = counts.get(&pair).copied().unwrap_or(0);
        if now != count {
            // Merges made since have eaten some of its occurrences: it queues again with what is left.
            if now > 0 {
                queue.push((now, Reverse(pair)));
            }
            continue;
        }
        if now <= 0 {
            continue;
        }
        let (left, right) = (learned.vocab[pair.0 as usize].clone(), learned.vocab[pair.1 as usize].clone());
        let token = format!("{left}{right}");
        // Two pairs may spell the same token (ab·c and a·bc): both merge into one entry. What is built from such a token can come
        // up again when its second spelling is merged; the pair keeps its first rank.
        if known.insert(pair) {
            learned.merges.push((left, right));
        }
        let id = *ids.entry(token.clone()).or_insert_with(|| {
            learned.vocab.push(token);
            learned.vocab.len() as u32 - 1
        });

        let mut risen = BTreeSet::new();
        for w in places.remove(&pair).unwrap_or_default() {
            let word = &mut words[w];
            let count = word.count;
            word.merge(pair, id, |changed, sign| {
                *counts.entry(changed).or_default() += sign * count;
                if sign > 0 {
                    let places = places.entry(changed).or_default();
                    if places.last() != Some(&w) {
                        places.push(w);
                    }
                    risen.insert(changed);
                }
            });
        }
        counts.remove(&pair);
        queue.extend(risen.into_iter().filter_map(|pair| Some((*counts.get(&pair)?, Reverse(pair)))));
    }
    learned
}

struct Word {
    symbols: Vec<u32>,
    count: i64,
}

/// The words as symbols of one character each.
fn split(words: &HashMap<String, u64>, ids: &HashMap<String, u32>) -> Vec<Word> {
    let of_char: HashMap<char, u32> = ids
        .iter()
        .filter_map(|(token, &id)| {
            let mut chars = token.chars();
            Some((chars.next()?, id)).filter(|_| chars.next().is_none())
        })
        .collect();
    words
        .iter()
        .map(|(word, &count)| Word {
            symbols: word.chars().filter_map(|c| of_char.get(&c).copied()).collect(),
            count: count as i64,
        })
        .collect()
}

impl Word {
    /// Replaces `pair` by `id` from left to right and reports each pair of neighbours that went (-1) or came (+1).
    fn merge(&mut self, pair: Pair, id: u32, mut report: impl FnMut(Pair, i64)) {
        let mut merged = Vec::with_capacity(self.symbols.len());
        let mut rest = self.symbols.as_slice();
        while let [first, tail @ ..] = rest {
            if tail.first().is_some_and(|&second| (*first, second) == pair) {
                report(pair, -1);
                if let Some(&before) = merged.last() {
                    report((before, pair.0), -1);
                    report((before, id), 1);
                }
                if let Some(&after) = tail.get(1) {
                    report((pair.1, after), -1);
                    report((id, after), 1);
                }
                merged.push(id);
                rest = &tail[1..];
            } else {
                merged.push(*first);
                rest = tail;
            }
        }
        self.symbols = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: count every pair afresh before every merge.
    fn naive(words: &HashMap<String, u64>, mut vocab: Vec<String>, vocab_size: usize) -> (Vec<String>, Vec<(String, String)>) {
        let mut words: Vec<(Vec<String>, u64)> =
            words.iter().map(|(w, &n)| (w.chars().map(|c| c.to_string()).collect(), n)).collect();
        let mut merges = Vec::new();
        while vocab.len() < vocab_size {
            let id = |t: &String| vocab.iter().position(|v| v == t).unwrap();
            let mut counts: HashMap<(usize, usize), u64> = HashMap::new();
            for (symbols, n) in &words {
                symbols.windows(2).for_each(|p| *counts.entry((id(&p[0]), id(&p[1]))).or_default() += n);
            }
            let Some((&(a, b), _)) = counts.iter().max_by_key(|&(&pair, &n)| (n, Reverse(pair))) else { break };
            let (a, b) = (vocab[a].clone(), vocab[b].clone());
            let token = format!("{a}{b}");
            for (symbols, _) in &mut words {
                let mut i = 0;
                while i + 1 < symbols.len() {
                    if symbols[i] == a && symbols[i + 1] == b {
                        symbols.splice(i..i + 2, [token.clone()]);
                    }
                    i += 1;
                }
            }
            if !merges.contains(&(a.clone(), b.clone())) {
                merges.push((a, b));
            }
            if !vocab.contains(&token) {
                vocab.push(token);
            }
        }
        (vocab, merges)
    }

    proptest! {
        #[test]
        fn equals_counting_afresh(words in proptest::collection::hash_map("[abc]{1,9}", 1u64..5, 1..20), more in 0usize..40) {
            let alphabet: Vec<String> = ["<s>", "a", "b", "c"].map(String::from).to_vec();
            let learned = learn(&words, alphabet.clone(), 4 + more);
            prop_assert_eq!((learned.vocab, learned.merges), naive(&words, alphabet, 4 + more));
        }
    }
}
