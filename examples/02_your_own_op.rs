//! An operation of one's own: forward, backward, and the check that would find a wrong backward.
//! `cargo run --release --example 02_your_own_op`
use ferromind::ops::{inputs, linear::linear};
use ferromind::params::Gradients;
use ferromind::rng::Philox;
use ferromind::tape::{Op, Sink, Tape, check_gradients};
use ferromind::tensor::{Float, Tensor};
use ferromind::{Error, Result, with_float};

/// Soft capping of logits: `y = cap · tanh(x / cap)`, near x where x is small, never beyond ±cap (Gemma 2, arXiv 2408.00118).
///
/// Backward: `dx = dy · (1 − (y/cap)²)`. Saved: `y`.
#[derive(Clone, Copy)]
struct SoftCap {
    cap: f64,
}

impl Op for SoftCap {
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        "soft_cap"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let [x] = inputs("soft_cap", x)?;
        let y = with_float!("soft_cap", x.dtype(), F => {
            let (x_data, cap) = (x.data::<F>()?, F::of(self.cap));
            Ok(Tensor::build::<F>(x.shape(), |y| y.iter_mut().zip(x_data).for_each(|(y, &x)| *y = cap * (x / cap).tanh())))
        })?;
        Ok((vec![y.clone()], y))
    }

    fn backward(&self, y: Tensor, dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        with_float!("soft_cap", dy.dtype(), F => {
            let (y, dy, cap) = (y.data::<F>()?, dy.data::<F>()?, F::of(self.cap));
            let slope = |y: F| F::of(1.0) - (y / cap) * (y / cap);
            sink.add(0, Tensor::new([y.len()], y.iter().zip(dy).map(|(&y, &dy)| dy * slope(y)).collect())?)
        })
    }
}

/// The same with a mistake: backward forgets the slope.
struct Forgetful(SoftCap);

impl Op for Forgetful {
    type Saved = ();

    fn name(&self) -> &'static str {
        "forgetful"
    }

    fn forward(&self, x: &[&Tensor]) -> Result<(Vec<Tensor>, ())> {
        Ok((self.0.forward(x)?.0, ()))
    }

    fn backward(&self, (): (), dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        sink.add(0, dy.clone())
    }
}

/// The relative error of an operation's gradient against central differences, at 15 random numbers of the size of the cap.
fn relative_error<O: Op>(op: impl Fn() -> O) -> Result<f64> {
    let random = |seed| Tensor::new([3, 5], (0..15).map(|i| 2.0 * Philox::new(seed).normal(i)).collect());
    let (x, weights) = (random(1)?, random(2)?.reshape([1, 15])?);
    // What is differentiated is one number; weights that differ give each element of the output a gradient of its own.
    let checks = check_gradients(&[x], |tape, x| {
        let y = tape.apply(op(), &[&x[0]])?;
        linear(tape, &y.reshape([1, 15])?, &weights.clone().into())
    })?;
    Ok(checks[0].relative_error)
}

fn main() -> Result<()> {
    let op = SoftCap { cap: 2.0 };
    let mut tape = Tape::recording();
    let x = tape.input(Tensor::new([1, 3], vec![0.1f32, -2.0, 10.0])?);
    let y = tape.apply(op, &[&x])?;
    let sum = linear(&mut tape, &y, &Tensor::new([1, 3], vec![1.0f32; 3])?.into())?;
    let backward = tape.backward(&sum, 1.0, &mut Gradients::none())?;
    println!("x      {:7.4?}", x.value().to_f64()?);
    println!("y      {:7.4?}", y.value().to_f64()?);
    if let Some(dx) = backward.input(&x) {
        println!("dy/dx  {:7.4?}", dx.to_f64()?);
    }

    let (right, wrong) = (relative_error(|| op)?, relative_error(|| Forgetful(op))?);
    println!("relative error of the gradient: soft_cap {right:.0e}, forgetful {wrong:.0e}");
    if right > 1e-6 || wrong <= 1e-6 {
        return Err(Error::Internal("the gradient check does not tell the right backward from the wrong one".into()));
    }
    println!("soft_cap passes, forgetful is caught");
    Ok(())
}
