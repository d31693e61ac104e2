//! The shapes and types in which attention to a cache is proven.

use super::kernel::{self, Cache, Extents, LatentQueries, LatentWidths, NewRows, Output, Queries, Widths};
use super::{Sizes, reference};
use crate::gpu::ElementType;
use crate::ops::table::{Case, HostOperands, Operand, Precision, Problem, Traffic, Type, normal, widened};
use crate::with_precision;

/// Odd widths, lengths and groups in every type; a long cache in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for element in ElementType::ALL {
        let odd = |shape: Shape| (shape, element, Traffic::Unmeasured);
        cases.push(grouped(odd(Shape::new(2, 1, [8, 2], [64, 64], &[300, 1], 1))));
        cases.push(grouped(odd(Shape::new(2, 1, [8, 2], [64, 64], &[517, 65], 3))));
        cases.push(grouped(odd(Shape::new(1, 3, [8, 2], [96, 96], &[130], 2))));
        cases.push(grouped(odd(Shape::new(1, 1, [4, 4], [128, 128], &[200], 40))));
        cases.push(grouped(odd(Shape::new(1, 5, [8, 1], [80, 72], &[100], 2))));
        cases.push(grouped(odd(Shape::new(1, 1, [1, 1], [8, 8], &[17], 1))));
        cases.push(grouped(odd(Shape::new(1, 2, [2, 1], [256, 256], &[70], 2))));
        cases.push(grouped(odd(Shape::new(1, 1, [2, 2], [192, 128], &[33], 1))));
        cases.push(latent(odd(Shape::new(2, 1, [5, 1], [64, 16], &[70, 33], 1))));
        cases.push(latent(odd(Shape::new(1, 2, [12, 1], [128, 32], &[200], 3))));
        cases.push(latent(odd(Shape::new(1, 1, [16, 1], [512, 64], &[100], 2))));
        cases.push(own_rotary(odd(Shape::new(2, 2, [5, 1], [64, 16], &[70, 33], 1))));
        cases.push(own_rotary(odd(Shape::new(1, 1, [8, 1], [128, 32], &[200], 3))));
        cases.push(append(element, [2, 3, 9], [24, 40]));
        cases.push(append(element, [3, 1, 2], [512, 64]));
    }
    let splits = Extents::splits(4, 1, 8, 2, 2048);
    let long = Shape::new(4, 1, [8, 2], [64, 64], &[2048, 2000, 1999, 1024], splits);
    cases.push(grouped((long, ElementType::BF16, Traffic::Streaming)));
    let long = Shape::new(1, 1, [8, 2], [128, 128], &[4095], Extents::splits(1, 1, 8, 2, 4096));
    cases.push(grouped((long, ElementType::BF16, Traffic::Streaming)));
    // Fewer splits than a device would be given, so that what they leave for one another does not hide how the cache is read.
    let long = Shape::new(1, 1, [16, 1], [512, 64], &[2048], 2);
    cases.push(latent((long, ElementType::BF16, Traffic::Streaming)));
    cases
}

#[derive(Debug, Clone)]
struct Shape {
    extents: Extents,
    /// Of keys and values, or of latents and rotated keys.
    widths: [usize; 2],
    lengths: Vec<usize>,
}

impl Shape {
    fn new(
        batch: usize,
        new_tokens: usize,
        [heads, kv_heads]: [usize; 2],
        widths: [usize; 2],
        lengths: &[usize],
        splits: usize,
    ) -> Self {
        let capacity = lengths.iter().max().map_or(0, |most| most + 3);
        let extents = Extents { batch, new_tokens, heads, kv_heads, capacity, splits };
        Self { extents, widths, lengths: lengths.to_vec() }
    }

    fn name(&self) -> String {
        let (Extents { batch, new_tokens, heads, kv_heads, splits, .. }, [a, b]) = (self.extents, self.widths);
        let longest = self.lengths.iter().max().unwrap_or(&0);
        format!("{batch}x{new_tokens} of {longest}, heads {heads}/{kv_heads}, width {a}/{b}, splits {splits}")
    }

    fn scale(&self) -> f64 {
        1.0 / (self.widths[0] as f64).sqrt()
    }

    /// An array of the cache: NaN past the end of each sequence, which nobody may use.
    fn cached(&self, name: &'static str, width: usize, seed: u64, element: ElementType) -> Operand {
        let (batch, capacity) = (self.extents.batch, self.extents.capacity);
        let mut values = normal(batch * capacity * width, seed);
        for (sequence, &length) in values.chunks_exact_mut(capacity * width).zip(&self.lengths) {
            sequence[length * width..].fill(f64::NAN);
        }
        let used = self.lengths.iter().sum::<usize>() * width * element.bytes();
        Operand::input(name, Type::Activation, [batch * capacity, width], values).touching(used as u64)
    }

    fn lengths(&self) -> Operand {
        Operand::input("lengths", Type::I32, [1, self.lengths.len()], self.lengths.iter().map(|&l| l as f64).collect())
    }

    fn workspaces(&self, width: usize) -> [Operand; 2] {
        let rows = self.extents.rows() * self.extents.splits;
        [Operand::workspace("partial", Type::F32, rows * width), Operand::workspace("stats", Type::F32, rows * 2)]
    }

    /// Operations of both products, given the widths that keys and values have in them.
    fn flops(&self, key: usize, value: usize) -> u64 {
        let seen: usize = self.lengths.iter().sum();
        (2 * seen * self.extents.new_tokens * self.extents.heads * (key + value)) as u64
    }

    /// The formula for each sequence. `rows`: what gives its queries, keys and values as f64.
    fn reference<P: Precision>(&self, [q, keys, values]: [Vec<P::Number>; 3], [key_width, value_width]: [usize; 2]) -> Vec<f64> {
        let Extents { new_tokens, heads, kv_heads, capacity, .. } = self.extents;
        let mut o = Vec::new();
        for (b, &length) in self.lengths.iter().enumerate() {
            let sizes = Sizes { new_tokens, heads, kv_heads, key_width, value_width, length };
            let q = &q[b * new_tokens * heads * key_width..];
            let (keys, values) = (&keys[b * capacity * kv_heads * key_width..], &values[b * capacity * kv_heads * value_width..]);
            o.extend(widened(reference::<P>(q, keys, values, self.scale(), &sizes)));
        }
        o
    }
}

type Setting = (Shape, ElementType, Traffic);

fn grouped((shape, element, traffic): Setting) -> Case {
    Case::new("decode_attention", "grouped", &shape.name(), element, move || {
        let (shape, formula, [key, value]) = (shape.clone(), shape.clone(), shape.widths);
        let (extents, widths) = (shape.extents, Widths { key, value });
        let tokens = extents.batch * extents.new_tokens;
        // Queries are a slice of a fused projection.
        let q_pitch = extents.heads * key + 2 * extents.kv_heads * key;
        let q = normal(tokens * extents.heads * key, 1);
        let [partial, stats] = shape.workspaces(value);
        Problem {
            operands: vec![
                Operand::output("o", Type::Activation, [extents.rows(), value]),
                Operand::input("q", Type::Activation, [tokens, extents.heads * key], q).pitched(q_pitch),
                shape.cached("keys", extents.kv_heads * key, 2, element),
                shape.cached("values", extents.kv_heads * value, 3, element),
                shape.lengths(),
                partial,
                stats,
            ],
            flops: shape.flops(key, value),
            run: Box::new(move |on| {
                let to = Output { o: on.activations_mut("o")?, partial: on.slice_mut("partial")?, stats: on.slice_mut("stats")? };
                let cache =
                    Cache { first: on.activations("keys")?, second: on.activations("values")?, lengths: on.slice("lengths")? };
                let queries = Queries { q: on.activations("q")?, pitch: q_pitch };
                kernel::grouped(on.context(), extents, widths, to, queries, cache, shape.scale() as f32)
            }),
            reference: Box::new(move |arithmetic, host| {
                with_precision!(arithmetic, P => {
                    vec![("o", formula.reference::<P>(["q", "keys", "values"].map(|name| host.get(name)), [key, value]))]
                })
            }),
            traffic,
        }
    })
}

/// Rows of two arrays side by side, `count` rows of `a` and `b` columns.
fn beside<T: Copy>(first: &[T], second: &[T], [a, b]: [usize; 2]) -> Vec<T> {
    first.chunks_exact(a).zip(second.chunks_exact(b)).flat_map(|(a, b)| a.iter().chain(b).copied()).collect()
}

fn latent((shape, element, traffic): Setting) -> Case {
    latent_of("latent", false, shape, element, traffic)
}

/// Each head has rotated keys of its own.
fn own_rotary((shape, element, traffic): Setting) -> Case {
    latent_of("latent, own rotary", true, shape, element, traffic)
}

fn latent_of(pass: &'static str, per_head: bool, shape: Shape, element: ElementType, traffic: Traffic) -> Case {
    Case::new("decode_attention", pass, &shape.name(), element, move || {
        let (shape, mut formula, [rank, rotary]) = (shape.clone(), shape.clone(), shape.widths);
        let (extents, widths) = (shape.extents, LatentWidths { rank, rotary, per_head });
        let rows = extents.rows();
        // Heads that each have a rotated part see the latent as their own key beside it.
        let key_heads = if per_head { extents.heads } else { 1 };
        formula.extents.kv_heads = key_heads;
        // The rotated part of a query stands behind as many columns that are not.
        let stride = 2 * rotary;
        let [partial, stats] = shape.workspaces(rank);
        let queries: Vec<f64> = normal(rows * rank, 1).iter().map(|x| 0.3 * x).collect();
        Problem {
            operands: vec![
                Operand::output("o", Type::Activation, [rows, rank]),
                Operand::input("q", Type::Activation, [rows, rank], queries),
                Operand::input("q_rotary", Type::Activation, [rows, rotary], normal(rows * rotary, 4)).pitched(stride),
                shape.cached("latents", rank, 2, element),
                shape.cached("rotary", key_heads * rotary, 3, element),
                shape.lengths(),
                partial,
                stats,
            ],
            flops: shape.flops(rank + rotary, rank),
            run: Box::new(move |on| {
                let to = Output { o: on.activations_mut("o")?, partial: on.slice_mut("partial")?, stats: on.slice_mut("stats")? };
                let cache =
                    Cache { first: on.activations("latents")?, second: on.activations("rotary")?, lengths: on.slice("lengths")? };
                let (latent, rotary) = (on.activations("q")?, on.activations("q_rotary")?);
                let queries = LatentQueries { latent, rotary, rotary_pitch: extents.heads * stride, rotary_stride: stride };
                kernel::latent(on.context(), extents, widths, to, queries, cache, shape.scale() as f32)
            }),
            reference: Box::new(move |arithmetic, host| {
                with_precision!(arithmetic, P => {
                    let latents = host.get("latents");
                    let latents: Vec<_> = latents.chunks_exact(rank).flat_map(|latent| latent.repeat(key_heads)).collect();
                    let beside = |first: &[_], second: &str| beside(first, &host.get(second), [rank, rotary]);
                    let rows = [beside(&host.get("q"), "q_rotary"), beside(&latents, "rotary"), latents];
                    vec![("o", formula.reference::<P>(rows, [rank + rotary, rank]))]
                })
            }),
            traffic,
        }
    })
}

fn append(element: ElementType, [batch, new_tokens, capacity]: [usize; 3], widths: [usize; 2]) -> Case {
    let name = format!("{batch}x{new_tokens} of {capacity}, width {}/{}", widths[0], widths[1]);
    Case::new("decode_attention", "append", &name, element, move || {
        let lengths: Vec<usize> = (0..batch).map(|b| (new_tokens + b).min(capacity)).collect();
        let pitches = widths.map(|width| width + 16);
        let old = |name, width: usize, seed| {
            Operand::in_out(name, Type::Activation, [batch * capacity, width], normal(batch * capacity * width, seed))
        };
        let new = |name, i: usize, seed| {
            let (rows, width) = (batch * new_tokens, widths[i]);
            Operand::input(name, Type::Activation, [rows, width], normal(rows * width, seed)).pitched(pitches[i])
        };
        let ends = lengths.iter().map(|&length| length as f64).collect();
        Problem {
            operands: vec![
                old("first", widths[0], 1),
                old("second", widths[1], 2),
                new("new_first", 0, 3),
                new("new_second", 1, 4),
                Operand::input("lengths", Type::I32, [1, batch], ends),
            ],
            run: Box::new(move |on| {
                let to = [on.activations_mut("first")?, on.activations_mut("second")?];
                let rows = [on.activations("new_first")?, on.activations("new_second")?];
                let new = [0, 1].map(|i| NewRows { rows: rows[i], pitch: pitches[i], width: widths[i] });
                kernel::append(on.context(), [batch, new_tokens, capacity], to, new, on.slice("lengths")?)
            }),
            reference: Box::new(move |_, host: &HostOperands| {
                let appended = |to: &str, from: &str, width: usize| {
                    let (mut to, from) = (host.get::<f64>(to), host.get::<f64>(from));
                    for (b, new) in from.chunks_exact(new_tokens * width).enumerate() {
                        let at = (b * capacity + lengths[b] - new_tokens) * width;
                        to[at..at + new.len()].copy_from_slice(new);
                    }
                    to
                };
                vec![("first", appended("first", "new_first", widths[0])), ("second", appended("second", "new_second", widths[1]))]
            }),
            flops: 0,
            traffic: Traffic::Unmeasured,
        }
    })
}
