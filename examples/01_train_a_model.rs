//! A language model trained through the tape: it learns a verse by heart, character by character, and recites it.
//! `cargo run --release --example 01_train_a_model`
use ferromind::ops::adamw::{AdamW, State};
use ferromind::ops::gated::{Activation, gated};
use ferromind::ops::{cross_entropy::cross_entropy, embedding::embedding, linear::linear};
use ferromind::params::{Gradients, Layout, Param, Params};
use ferromind::tape::{Tape, Var};
use ferromind::{Result, rng::Philox, tensor::DType};

const VERSE: &str = "A token is a number, a number picks a row,\na row becomes a vector, and off the vectors go.\n\
    They meet, they mix, they guess a word; the loss says what it cost:\nand gradients walk back the path until no step is lost.\n";
const CONTEXT: usize = 12; // characters that the next one is guessed from
const WIDTH: usize = 16; // numbers that a character is described by
const INNER: usize = 64; // gated units

/// `ids` `[N·CONTEXT]` → what comes next, `[N, WIDTH]`, and the table `[128, WIDTH]` that its logits are products with.
fn model(tape: &mut Tape, params: &Params, weights: &[Param; 3], ids: &[i32]) -> Result<[Var; 2]> {
    let [table, gate_up, down] = weights.each_ref().map(|weight| tape.param(params, weight));
    let x = embedding(tape, &table, ids.into())?.reshape([ids.len() / CONTEXT, CONTEXT * WIDTH])?;
    let x = linear(tape, &x, &gate_up)?;
    let x = gated(tape, &x, Activation::Silu)?;
    Ok([linear(tape, &x, &down)?, table])
}

fn main() -> Result<()> {
    let mut layout = Layout::default();
    let shapes = [("table", [128, WIDTH]), ("gate_up", [2 * INNER, CONTEXT * WIDTH]), ("down", [WIDTH, INNER])];
    let weights = shapes.map(|(name, shape)| layout.add(name, shape));
    let mut params = Params::zeros(layout, DType::F32);
    params.flat_mut::<f32>()?.iter_mut().enumerate().for_each(|(i, p)| *p = 0.1 * Philox::new(1).normal(i as u64) as f32);
    let mut gradients = Gradients::zeros(&params);
    let [mut m, mut v] = [(); 2].map(|()| vec![0.0f32; params.layout().len()]);

    let verse: Vec<i32> = VERSE.bytes().map(i32::from).collect();
    let (inputs, targets) = (verse[..verse.len() - 1].windows(CONTEXT).collect::<Vec<_>>().concat(), &verse[CONTEXT..]);
    for step in 1..=100 {
        let mut tape = Tape::recording();
        let [x, table] = model(&mut tape, &params, &weights, &inputs)?;
        let loss = cross_entropy(&mut tape, &x, &table, targets.into(), targets.len())?;
        gradients.clear();
        tape.backward(&loss, 1.0, &mut gradients)?;
        drop(table); // it shares the parameters, which are now written
        let state = State { params: params.flat_mut()?, grads: gradients.flat()?, m: &mut m, v: &mut v };
        assert!(AdamW::default().update(state, step, 0.005, 1.0, true), "the weights stay finite");
        if step % 10 == 0 {
            println!("step {step:3}  loss {:.4}", loss.value().item()?);
        }
    }
    let mut recited = verse[..CONTEXT].to_vec();
    while recited.len() < verse.len() {
        let mut tape = Tape::inference();
        let [x, table] = model(&mut tape, &params, &weights, &recited[recited.len() - CONTEXT..])?;
        let logits = linear(&mut tape, &x, &table)?.value().to_f64()?;
        recited.extend((0..128).max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize])));
    }
    print!("{}", recited.iter().map(|&id| id as u8 as char).collect::<String>());
    println!("{} of {} characters are right", recited.iter().zip(&verse).filter(|(a, b)| a == b).count(), verse.len());
    Ok(())
}
