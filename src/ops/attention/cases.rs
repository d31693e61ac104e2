//! The shapes and types in which attention's kernels are proven.

use std::sync::Arc;

use super::Attention;
use super::documents::document_ends;
use super::kernel::{self, Documents, Dropout, Extents, Gradients, Heads, Inputs, Masks, Saved};
use super::reference;
use crate::gpu::ElementType;
use crate::ops::dropout::DropoutMask;
use crate::ops::table::{Case, HostOperands, Operand, Operands, Outputs, Precision, Problem, Traffic, Type, normal, widened};
use crate::rng::Philox;
use crate::tensor::Float;
use crate::{Error, Result, with_precision};

const DROPOUT_KEY: u64 = 0x1_2345_6789_ABCD;
const FIRST_SAMPLE: u64 = 1 << 40;

/// One attention and the widths of its heads.
#[derive(Debug, Clone)]
struct Shape {
    attention: Attention,
    head_dim: usize,
    value_dim: usize,
    /// Whether the counters are compared with what the tiling predicts.
    measured: bool,
}

/// Which masks a case has.
#[derive(Debug, Clone, Copy, Default)]
struct With {
    documents: bool,
    padding: bool,
    dropout: bool,
}

/// Odd shapes under all masks in every type, the models' heads in bf16.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let none = With::default();
    let documents = With { documents: true, ..none };
    let (padding, dropout) = (With { padding: true, ..none }, With { dropout: true, ..none });
    let all = With { documents: true, padding: true, dropout: true };
    // Sequences, tokens, heads of q and of k, columns of q and k and of v.
    let odd = [
        ([1, 1, 2, 1, 8, 8], none),
        ([2, 17, 4, 2, 64, 64], all),
        ([1, 17, 10, 1, 24, 40], padding),
        ([1, 129, 6, 2, 96, 96], documents),
        ([1, 65, 3, 3, 128, 128], all),
        ([1, 70, 2, 1, 192, 128], dropout),
        ([1, 70, 2, 1, 192, 128], padding),
        ([1, 33, 2, 1, 256, 256], dropout),
        ([1, 300, 4, 1, 64, 64], all),
        ([1, 511, 1, 1, 16, 8], none),
        ([1, 513, 2, 1, 16, 16], documents),
    ];
    for (i, (sizes, with)) in odd.into_iter().enumerate() {
        for element in ElementType::ALL {
            // Between f16 and bf16 nothing differs but the instructions' names.
            if element != ElementType::F16 || i < 4 {
                add(&mut cases, Shape::new(sizes, with), element);
            }
        }
    }
    for sizes in [[1, 512, 8, 2, 64, 64], [1, 512, 4, 2, 96, 96], [1, 512, 4, 2, 128, 128], [1, 512, 2, 2, 192, 128]] {
        add(&mut cases, Shape { measured: true, ..Shape::new(sizes, none) }, ElementType::BF16);
    }
    add(&mut cases, Shape::new([1, 512, 4, 2, 64, 64], documents), ElementType::BF16);
    cases
}

fn add(cases: &mut Vec<Case>, shape: Shape, element: ElementType) {
    let (name, other) = (shape.to_string(), shape.clone());
    cases.push(Case::new("attention", "forward", &name, element, move || forward(&shape)));
    cases.push(Case::new("attention", "backward", &name, element, move || backward(&other)));
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Attention { batch, seq_len, heads, kv_heads, .. } = self.attention;
        write!(f, "{batch}x{seq_len} {heads}/{kv_heads}x{}/{}", self.head_dim, self.value_dim)?;
        let masks = [
            ("documents", self.attention.document_starts.is_some()),
            ("padding", self.attention.attention_mask.is_some()),
            ("dropout", self.attention.dropout.is_some()),
        ];
        masks.iter().filter(|(_, is_there)| *is_there).try_for_each(|(name, _)| write!(f, " {name}"))
    }
}

impl Shape {
    fn new([batch, seq_len, heads, kv_heads, head_dim, value_dim]: [usize; 6], with: With) -> Self {
        let tokens = || (0..batch).flat_map(move |b| (0..seq_len).map(move |t| (b, t)));
        // The first document has one token, the others 75.
        let start = |t: usize| if t == 0 { 0 } else { ((t - 1) / 75 * 75 + 1) as i32 };
        // At the left of the first sequence, at the right of the others, and one token inside.
        let real = |b: usize, t: usize| if b == 0 { t >= 2 && t != 4 } else { t + 3 < seq_len };
        let sample_ids = (0..batch as u64).map(|b| FIRST_SAMPLE + b).collect();
        let dropout = DropoutMask { p: 0.2, philox: Philox::new(DROPOUT_KEY), sample_ids };
        let attention = Attention {
            document_starts: with.documents.then(|| tokens().map(|(_, t)| start(t)).collect::<Arc<[i32]>>()),
            attention_mask: with.padding.then(|| tokens().map(|(b, t)| i32::from(real(b, t))).collect::<Arc<[i32]>>()),
            dropout: with.dropout.then_some(dropout),
            ..Attention::new(batch, seq_len, heads, kv_heads, head_dim)
        };
        Self { attention, head_dim, value_dim, measured: false }
    }

    /// Elements between the rows of q, k and v: whole sectors where sectors are counted.
    fn gaps(&self) -> [usize; 3] {
        [1, 2, 3].map(|n| n * if self.measured { 16 } else { 8 })
    }

    fn extents(&self) -> Extents {
        let Attention { batch, seq_len, heads, kv_heads, scale, .. } = self.attention;
        Extents { batch, seq_len, heads, kv_heads, head_dim: self.head_dim, value_dim: self.value_dim, scale }
    }

    fn tokens(&self) -> usize {
        self.attention.batch * self.attention.seq_len
    }

    /// Extents of q, k and v.
    fn matrices(&self) -> [[usize; 2]; 3] {
        let Attention { heads, kv_heads, .. } = self.attention;
        [heads * self.head_dim, kv_heads * self.head_dim, kv_heads * self.value_dim].map(|cols| [self.tokens(), cols])
    }

    /// Extents of o.
    fn output(&self) -> [usize; 2] {
        [self.tokens(), self.attention.heads * self.value_dim]
    }

    /// Extents of what there is one of for each head of each token.
    fn per_row(&self) -> [usize; 2] {
        [self.tokens() * self.attention.heads, 1]
    }

    /// q, k and v, in rows with gaps, and the masks.
    fn operands(&self) -> Vec<Operand> {
        let Attention { batch, seq_len, document_starts, attention_mask, dropout, .. } = &self.attention;
        let mut operands = Vec::new();
        for (i, name) in ["q", "k", "v"].into_iter().enumerate() {
            let (shape, gap) = (self.matrices()[i], self.gaps()[i]);
            let values = normal(shape[0] * shape[1], 1 + i as u64);
            operands.push(Operand::input(name, Type::Activation, shape, values).pitched(shape[1] + gap));
        }
        let per_token = |name, values: &[i32]| {
            Operand::input(name, Type::I32, [*batch, *seq_len], values.iter().map(|&x| f64::from(x)).collect())
        };
        if let Some(starts) = document_starts {
            operands.push(per_token("starts", starts));
            operands.push(per_token("ends", &document_ends(starts, *seq_len).expect("documents one after the other")));
        }
        operands.extend(attention_mask.as_ref().map(|mask| per_token("mask", mask)));
        if let Some(dropout) = dropout {
            let sample_ids = dropout.sample_ids.iter().map(|&id| id as f64).collect();
            operands.push(Operand::input("key", Type::I64, [1, 1], vec![DROPOUT_KEY as f64]));
            operands.push(Operand::input("sample_ids", Type::I64, [1, *batch], sample_ids));
        }
        operands
    }

    /// The same on the device.
    fn device<'a>(&self, on: &'a Operands<'_>) -> Result<(Inputs<'a>, Masks<'a>)> {
        let (matrices, gaps) = (self.matrices(), self.gaps());
        let heads = |name, i: usize| Ok::<_, Error>(Heads { data: on.activations(name)?, pitch: matrices[i][1] + gaps[i] });
        let inputs = Inputs { q: heads("q", 0)?, k: heads("k", 1)?, v: heads("v", 2)? };
        let Attention { document_starts, attention_mask, dropout, .. } = &self.attention;
        let documents = || Ok::<_, Error>(Documents { starts: on.slice("starts")?, ends: on.slice("ends")? });
        let dropout = dropout
            .as_ref()
            .map(|dropout| Ok::<_, Error>(Dropout { p: dropout.p, key: on.slice("key")?, sample_ids: on.slice("sample_ids")? }));
        let masks = Masks {
            documents: document_starts.is_some().then(documents).transpose()?,
            padding: attention_mask.is_some().then(|| on.slice("mask")).transpose()?,
            dropout: dropout.transpose()?,
        };
        Ok((inputs, masks))
    }

    fn forward_reference<P: Precision>(&self, host: &HostOperands) -> [Vec<P::Number>; 2] {
        let [q, k, v] = ["q", "k", "v"].map(|name| host.get::<P::Number>(name));
        let zeros = |[rows, cols]: [usize; 2]| vec![P::Number::of(0.0); rows * cols];
        let (mut o, mut lse) = (zeros(self.output()), zeros(self.per_row()));
        self.attention.reference::<P>([&q, &k, &v], &mut o, &mut lse);
        [o, lse]
    }

    /// Pairs of a query and a key that it sees.
    fn pairs(&self) -> u64 {
        let Attention { batch, seq_len, heads, .. } = self.attention;
        (batch * heads * seq_len * (seq_len + 1) / 2) as u64
    }
}

fn forward(shape: &Shape) -> Problem {
    let mut operands =
        vec![Operand::output("o", Type::Activation, shape.output()), Operand::output("lse", Type::F32, shape.per_row())];
    operands.extend(shape.operands());
    let (on_device, on_host) = (shape.clone(), shape.clone());
    Problem {
        operands,
        run: Box::new(move |on| {
            let (inputs, masks) = on_device.device(on)?;
            kernel::forward(on.context(), on_device.extents(), on.activations_mut("o")?, on.slice_mut("lse")?, inputs, masks)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let [o, lse] = on_host.forward_reference::<P>(host);
                vec![("o", widened(o)), ("lse", widened(lse))] as Outputs
            })
        }),
        flops: 2 * shape.pairs() * (shape.head_dim + shape.value_dim) as u64,
        traffic: if shape.measured { Traffic::Tiled { sectors: forward_sectors(shape) } } else { Traffic::Unmeasured },
    }
}

fn backward(shape: &Shape) -> Problem {
    let mut operands = vec![Operand::output("delta", Type::F32, shape.per_row())];
    for (i, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
        let matrix = shape.matrices()[i];
        operands.push(Operand::output(name, Type::Activation, matrix).pitched(matrix[1] + shape.gaps()[i]));
    }
    let inputs = shape.operands();
    let values = inputs.iter().map(|operand| (operand.name, operand.values.clone())).collect();
    let [o, lse] = shape.forward_reference::<crate::ops::table::Exact>(&HostOperands(values));
    operands.extend(inputs);
    operands.push(Operand::input("o", Type::Activation, shape.output(), o));
    operands.push(Operand::input("lse", Type::F32, shape.per_row(), lse));
    let [rows, cols] = shape.output();
    operands.push(Operand::input("d_o", Type::Activation, [rows, cols], normal(rows * cols, 4)));
    let (on_device, on_host) = (shape.clone(), shape.clone());
    Problem {
        operands,
        run: Box::new(move |on| {
            let (inputs, masks) = on_device.device(on)?;
            let heads = |name, pitch| Ok::<_, Error>(Heads { data: on.activations_mut(name)?, pitch });
            let Inputs { q, k, v } = inputs;
            let (dq, dk, dv) = (heads("dq", q.pitch)?, heads("dk", k.pitch)?, heads("dv", v.pitch)?);
            let to = Gradients { dq, dk, dv, delta: on.slice_mut("delta")? };
            let saved = Saved { o: on.activations("o")?, lse: on.slice("lse")?, d_o: on.activations("d_o")? };
            kernel::backward(on.context(), on_device.extents(), to, saved, inputs, masks)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                let [q, k, v, o, lse, d_o] = ["q", "k", "v", "o", "lse", "d_o"].map(|name| host.get::<F>(name));
                let saved = reference::Saved { q: &q, k: &k, v: &v, o: &o, lse: &lse, d_o: &d_o };
                let reference::Gradients { dq, dk, dv, delta } = on_host.attention.reference_backward::<P>(&saved);
                vec![("dq", widened(dq)), ("dk", widened(dk)), ("dv", widened(dv)), ("delta", widened(delta))] as Outputs
            })
        }),
        flops: 2 * shape.pairs() * (3 * shape.head_dim + 2 * shape.value_dim) as u64,
        traffic: if shape.measured { Traffic::Tiled { sectors: backward_sectors(shape) } } else { Traffic::Unmeasured },
    }
}

/// Sectors of a row of so many 16-bit elements.
fn sectors(elements: usize) -> u64 {
    (elements * 2 / 32) as u64
}

/// Keys that blocks of so many rows read, in steps of `step` that end at the diagonal: the sum over blocks.
fn keys_read(shape: &Shape, block_rows: usize, step: usize) -> u64 {
    let Attention { batch, seq_len, heads, kv_heads, .. } = shape.attention;
    let (group, rows) = (heads / kv_heads, seq_len * heads / kv_heads);
    let keys = |block: usize| (((block + 1) * block_rows).min(rows) - 1) / group / step * step + step;
    let of_head: usize = (0..rows.div_ceil(block_rows)).map(|block| keys(block).min(seq_len)).sum();
    (of_head * batch * kv_heads) as u64
}

/// Requests of `attention_forward`: q, o and lse once, keys and values for each block.
fn forward_sectors(shape: &Shape) -> u64 {
    let (d, dv, rows) = (sectors(shape.head_dim), sectors(shape.value_dim), shape.per_row()[0] as u64);
    let step = if shape.head_dim + shape.value_dim <= 192 { 64 } else { 32 };
    rows * (d + dv) + rows / 8 + keys_read(shape, 128, step) * (d + dv)
}

/// Requests of the two kernels of backward. By rows: q, o, d_o, dq, lse and delta once, keys and values for each block. By keys: k,
/// v, dk and dv once, q, d_o, lse and delta for each block, from its first key on.
fn backward_sectors(shape: &Shape) -> u64 {
    const OWN_KEYS: usize = 128;
    let Attention { batch, seq_len, heads, kv_heads, .. } = shape.attention;
    let (d, dv, rows) = (sectors(shape.head_dim), sectors(shape.value_dim), shape.per_row()[0] as u64);
    let block_rows = if shape.head_dim <= 128 { 128 } else { 64 };
    let by_rows = rows * (2 * d + 2 * dv) + rows / 4 + keys_read(shape, block_rows, 32) * (d + dv);
    let of_head: usize = (0..seq_len).step_by(OWN_KEYS).map(|first_key| (seq_len - first_key) * heads / kv_heads).sum();
    let rows_read = (of_head * batch * kv_heads) as u64;
    by_rows + (batch * seq_len * kv_heads) as u64 * 2 * (d + dv) + rows_read * (d + dv) + rows_read / 4
}
