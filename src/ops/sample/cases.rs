//! The vocabularies and settings in which sampling is proven: tokens must be equal.

use super::kernel::{self, ENDED, GOES_ON, NOT_FINITE, Sequences, seen_words};
use super::{Settings, reference};
use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Problem, Traffic, Type, normal};
use crate::rng::Philox;

const BATCH: usize = 4;
const CAPACITY: usize = 9;
/// Tokens of each sequence before. The second has ended already, the third reaches its capacity.
const LENGTHS: [usize; BATCH] = [3, 5, 8, 1];
const STATUS: [i32; BATCH] = [GOES_ON, ENDED, GOES_ON, GOES_ON];
const DRAWS: [u64; BATCH] = [0, 7, 1000, 1 << 33];

/// Each filter by itself and together, with and without equal logits.
pub fn cases() -> Vec<Case> {
    let off = Settings { repetition_penalty: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };
    let settings = [
        ("greedy", Settings { temperature: 0.0, ..off }),
        ("greedy, penalty", Settings { temperature: 0.0, repetition_penalty: 1.5, ..off }),
        ("all", off),
        ("flat", Settings { temperature: 5.0, ..off }),
        ("top-k", Settings { top_k: 3, temperature: 2.0, ..off }),
        ("top-p", Settings { top_p: 0.875, temperature: 0.75, ..off }),
        ("min-p", Settings { min_p: 0.125, ..off }),
        ("every filter", Settings { repetition_penalty: 1.25, temperature: 1.5, top_k: 50, top_p: 0.9375, min_p: 0.0625 }),
    ];
    let mut cases = Vec::new();
    for (pass, settings) in settings {
        for (vocabulary, equals) in [(1, false), (33, true), (511, false), (6400, true)] {
            cases.push(next(pass, vocabulary, settings, if equals { Logits::Equals } else { Logits::Distinct }));
        }
    }
    cases.push(next("not finite", 100, off, Logits::NotFinite));
    cases
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Logits {
    Distinct,
    /// Halves only, so that many are equal.
    Equals,
    /// One of the last sequence's is NaN.
    NotFinite,
}

fn key(sequence: usize) -> u64 {
    // As far as a number of the table goes without rounding.
    (sequence as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 12
}

fn next(pass: &'static str, vocabulary: usize, settings: Settings, kind: Logits) -> Case {
    let shape = format!("{BATCH}x{vocabulary}");
    Case::new("sample", pass, &shape, ElementType::F32, move || {
        let mut logits = normal(BATCH * vocabulary, 1);
        for logit in &mut logits {
            let value = 3.0 * *logit;
            *logit = f64::from(if kind == Logits::Equals { (2.0 * value).round() / 2.0 } else { value } as f32);
        }
        if kind == Logits::NotFinite {
            logits[BATCH * vocabulary - 2] = f64::NAN;
        }
        let token = |sequence: usize, i: usize| (sequence * 31 + i * 17 + 5) % vocabulary;
        let seen = |sequence: usize, of: usize| (0..LENGTHS[sequence]).any(|i| token(sequence, i) == of);
        let words = seen_words(vocabulary);
        let set = |tokens: &dyn Fn(usize, usize) -> bool| -> Vec<f64> {
            let word = |b: usize, w: usize| (0..32).filter(|bit| tokens(b, 32 * w + bit)).map(|bit| 1u32 << bit).sum::<u32>();
            (0..BATCH).flat_map(|b| (0..words).map(move |w| (b, w))).map(|(b, w)| f64::from(word(b, w))).collect()
        };
        let draw = |b: usize| {
            let row = &logits[b * vocabulary..][..vocabulary];
            let [low, high] = [key(b) as u32, (key(b) >> 32) as u32];
            reference(row, |of| seen(b, of), &settings, Philox::new(u64::from(low) | u64::from(high) << 32).uniform(DRAWS[b]))
        };
        // The first sequence's token ends it.
        let end_token = if kind == Logits::NotFinite { vocabulary - 1 } else { draw(0) };
        let (mut after, mut lengths, mut status, mut draws) = (Vec::new(), LENGTHS, STATUS, DRAWS);
        let mut drawn = [None; BATCH];
        for b in 0..BATCH {
            let finite = (0..vocabulary).all(|i| logits[b * vocabulary + i].is_finite());
            if status[b] == GOES_ON && !finite {
                status[b] = NOT_FINITE;
            } else if status[b] == GOES_ON {
                drawn[b] = Some(draw(b));
                lengths[b] += 1;
                draws[b] += u64::from(settings.temperature > 0.0);
                if drawn[b] == Some(end_token) || lengths[b] == CAPACITY {
                    status[b] = ENDED;
                }
            }
            for i in 0..CAPACITY {
                let new = if i == LENGTHS[b] { drawn[b].map(|of| of as f64) } else { None };
                after.push(if i < LENGTHS[b] { token(b, i) as f64 } else { new.unwrap_or(-1.0) });
            }
        }
        let before = (0..BATCH * CAPACITY).map(|at| (at / CAPACITY, at % CAPACITY));
        let tokens = before.map(|(b, i)| if i < LENGTHS[b] { token(b, i) as f64 } else { -1.0 }).collect();
        let seen_after = set(&|b, of| seen(b, of) || drawn[b] == Some(of));
        let ints = |of: &[i32]| of.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let sizes = |of: &[usize]| of.iter().map(|&x| x as f64).collect::<Vec<_>>();
        let wide = |of: &[u64]| of.iter().map(|&x| x as f64).collect::<Vec<_>>();
        let outputs = vec![
            ("tokens", after),
            ("lengths", sizes(&lengths)),
            ("status", ints(&status)),
            ("seen", seen_after),
            ("draws", wide(&draws)),
        ];
        Problem {
            operands: vec![
                Operand::in_out("tokens", Type::I32, [BATCH, CAPACITY], tokens),
                Operand::in_out("lengths", Type::I32, [1, BATCH], sizes(&LENGTHS)),
                Operand::in_out("status", Type::I32, [1, BATCH], ints(&STATUS)),
                Operand::in_out("seen", Type::U32, [BATCH, words], set(&seen)),
                Operand::in_out("draws", Type::I64, [1, BATCH], wide(&DRAWS)),
                Operand::workspace("keys", Type::U32, BATCH * vocabulary),
                Operand::input("random", Type::I64, [1, BATCH], (0..BATCH).map(|b| key(b) as f64).collect()),
                Operand::input("ends", Type::I32, [1, 2], vec![-7.0, end_token as f64]),
                Operand::input("logits", Type::F32, [BATCH, vocabulary], logits),
            ],
            run: Box::new(move |on| {
                let sequences = Sequences {
                    tokens: on.slice_mut("tokens")?,
                    lengths: on.slice_mut("lengths")?,
                    status: on.slice_mut("status")?,
                    seen: on.slice_mut("seen")?,
                    draws: on.slice_mut("draws")?,
                    random: on.slice("random")?,
                };
                let (keys, logits, ends) = (on.slice_mut("keys")?, on.slice("logits")?, on.slice("ends")?);
                kernel::next(on.context(), [BATCH, vocabulary, CAPACITY], sequences, keys, logits, ends, &settings)
            }),
            reference: Box::new(move |_, _| outputs.clone()),
            flops: (BATCH * vocabulary) as u64,
            traffic: Traffic::Unmeasured,
        }
    })
}
