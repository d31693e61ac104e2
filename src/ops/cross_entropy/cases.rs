//! The shapes and types in which the kernels of cross-entropy are proven.

use super::kernel::{self, Extents, Scale};
use super::reference_row;
use crate::data::Batch;
use crate::gpu::ElementType;
use crate::ops::table::{Case, HostOperands, Operand, Outputs, Precision, Problem, Traffic, Type, normal, widened};
use crate::tensor::Float;
use crate::with_precision;

/// What the loss is multiplied by.
const LOSS_SCALE: f64 = 8.0;

/// Odd shapes in every type, a model's in bf16. The longest rows are read twice.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let odd = [(1, 1, 1), (33, 17, 17), (17, 511, 513), (5, 513, 520), (3, 6401, 6401), (2, 33001, 33008)];
    for element in ElementType::ALL {
        for (rows, vocab_size, pitch) in odd {
            add(&mut cases, Extents { rows, vocab_size, pitch }, element, Traffic::Unmeasured);
        }
    }
    add(&mut cases, Extents { rows: 256, vocab_size: 6400, pitch: 6400 }, ElementType::BF16, Traffic::Streaming);
    for len in [1, 17, 5000] {
        let shape = format!("{len}");
        cases.push(Case::new("cross_entropy", "count", &shape, ElementType::F32, move || count(len)));
        cases.push(Case::new("cross_entropy", "mean", &shape, ElementType::F32, move || mean(len)));
    }
    cases
}

fn add(cases: &mut Vec<Case>, extents: Extents, element: ElementType, traffic: Traffic) {
    let shape = format!("{}x{}", extents.rows, extents.vocab_size);
    cases.push(Case::new("cross_entropy", "forward", &shape, element, move || forward(extents, traffic)));
    cases.push(Case::new("cross_entropy", "forward backward", &shape, element, move || forward_backward(extents, traffic)));
}

/// Labels of which every fifth is to be ignored.
fn labels(rows: usize, vocab_size: usize) -> Vec<f64> {
    (0..rows).map(|r| if r % 5 == 3 { f64::from(Batch::IGNORE) } else { ((r + 1) * 7919 % vocab_size) as f64 }).collect()
}

fn counted(labels: &[f64]) -> f64 {
    labels.iter().filter(|&&label| label != f64::from(Batch::IGNORE)).count() as f64
}

fn inputs(extents: Extents) -> (Vec<f64>, Vec<f64>) {
    let Extents { rows, vocab_size, .. } = extents;
    let logits = normal(rows * vocab_size, 1).into_iter().map(|x| 3.0 * x).collect();
    (logits, labels(rows, vocab_size))
}

/// Losses, and the gradients in the logits' place.
fn plainly<P: Precision>(extents: Extents, host: &HostOperands, scale: f64) -> (Vec<P::Number>, Vec<P::Number>) {
    let mut logits = host.get::<P::Number>("logits");
    let loss = |(logits, label): (&mut [P::Number], f64)| {
        if label == f64::from(Batch::IGNORE) {
            logits.fill(P::Number::of(0.0));
            return P::Number::of(0.0);
        }
        reference_row::<P>(logits, label as usize, P::Number::of(scale))
    };
    let losses = logits.chunks_exact_mut(extents.vocab_size).zip(host.get::<f64>("labels")).map(loss).collect();
    (losses, logits)
}

fn forward(extents: Extents, traffic: Traffic) -> Problem {
    let Extents { rows, vocab_size, pitch } = extents;
    let (logits, labels) = inputs(extents);
    // Rows that are ignored are not read.
    let bytes = (counted(&labels) as usize * vocab_size * 2) as u64;
    let logits = Operand::input("logits", Type::Activation, [rows, vocab_size], logits).pitched(pitch);
    Problem {
        operands: vec![
            Operand::output("loss", Type::F32, [1, rows]),
            if traffic == Traffic::Streaming { logits.touching(bytes) } else { logits },
            Operand::input("labels", Type::I32, [1, rows], labels),
        ],
        run: Box::new(move |on| {
            kernel::forward(on.context(), extents, on.slice_mut("loss")?, on.activations("logits")?, on.slice("labels")?)
        }),
        reference: Box::new(
            move |arithmetic, host| with_precision!(arithmetic, P => vec![("loss", widened(plainly::<P>(extents, host, 1.0).0))]),
        ),
        flops: 4 * (rows * vocab_size) as u64,
        traffic,
    }
}

fn forward_backward(extents: Extents, traffic: Traffic) -> Problem {
    let Extents { rows, vocab_size, pitch } = extents;
    let (logits, labels) = inputs(extents);
    let counted = counted(&labels);
    Problem {
        operands: vec![
            Operand::in_out("logits", Type::Activation, [rows, vocab_size], logits).pitched(pitch),
            Operand::output("loss", Type::F32, [1, rows]),
            Operand::input("labels", Type::I32, [1, rows], labels),
            Operand::input("counted", Type::I32, [1, 1], vec![counted]),
            Operand::input("loss_scale", Type::F32, [1, 1], vec![LOSS_SCALE]),
        ],
        run: Box::new(move |on| {
            let scale = Scale { counted: on.slice("counted")?, loss_scale: on.slice("loss_scale")? };
            let (logits, loss) = (on.activations_mut("logits")?, on.slice_mut("loss")?);
            kernel::forward_backward(on.context(), extents, logits, loss, on.slice("labels")?, scale)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                let (loss, logits) = plainly::<P>(extents, host, LOSS_SCALE / counted);
                let outputs: Outputs = vec![("loss", widened(loss)), ("logits", widened(logits))];
                outputs
            })
        }),
        flops: 6 * (rows * vocab_size) as u64,
        traffic,
    }
}

fn count(len: usize) -> Problem {
    let labels = labels(len, 100);
    let expected = counted(&labels) + 3.0;
    Problem {
        operands: vec![
            Operand::in_out("counted", Type::I32, [1, 1], vec![3.0]),
            Operand::input("labels", Type::I32, [1, len], labels),
        ],
        run: Box::new(|on| kernel::count(on.context(), on.slice_mut("counted")?, on.slice("labels")?)),
        reference: Box::new(move |_, _| vec![("counted", vec![expected])]),
        flops: 0,
        traffic: Traffic::Unmeasured,
    }
}

fn mean(len: usize) -> Problem {
    Problem {
        operands: vec![
            Operand::in_out("mean", Type::F32, [1, 1], vec![0.5]),
            Operand::input("loss", Type::F32, [1, len], normal(len, 1)),
            Operand::input("counted", Type::I32, [1, 1], vec![len as f64]),
        ],
        run: Box::new(|on| kernel::mean(on.context(), on.slice_mut("mean")?, on.slice("loss")?, on.slice("counted")?)),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as Precision>::Number;
                let sum = host.get::<F>("loss").into_iter().sum::<F>();
                vec![("mean", widened(vec![host.get::<F>("mean")[0] + sum / F::of(len as f64)]))]
            })
        }),
        flops: len as u64,
        traffic: Traffic::Unmeasured,
    }
}
