//! Gradients against central differences, in f64.

use super::{Tape, Var};
use crate::params::Gradients;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// How well the gradients of one input agree.
#[derive(Debug, Clone)]
pub struct GradientCheck {
    /// Which input.
    pub input: usize,
    /// ‖computed − differences‖₂ / max(‖computed‖₂, ‖differences‖₂); 0 where both are zero.
    pub relative_error: f64,
}

/// Compares the gradients of `f`, a function to one scalar built on the tape, with central differences of fourth order:
/// `(8·(f(x+h) − f(x−h)) − (f(x+2h) − f(x−2h))) / 12h`.
///
/// All inputs are f64. The error of the formula is of order h⁴, that of rounding of order 1e-16/h: about 1e-12 at `h = 1e-3`.
pub fn check_gradients(inputs: &[Tensor], f: impl Fn(&mut Tape, &[Var]) -> Result<Var>) -> Result<Vec<GradientCheck>> {
    let mut tape = Tape::recording();
    let vars: Vec<Var> = inputs.iter().map(|input| tape.input(input.clone())).collect();
    let root = f(&mut tape, &vars)?;
    let backward = tape.backward(&root, 1.0, &mut Gradients::none())?;
    let value = |inputs: &[Tensor]| -> Result<f64> {
        let vars: Vec<Var> = inputs.iter().cloned().map(Var::constant).collect();
        f(&mut Tape::inference(), &vars)?.value().item()
    };
    let h = 1e-3;
    let mut checks = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let original = input.data::<f64>()?.to_vec();
        let computed = match backward.input(&vars[i]) {
            Some(gradient) => gradient.data::<f64>()?.to_vec(),
            None => return Err(Error::Internal(format!("no gradient reached input {i}"))),
        };
        let mut moved = inputs.to_vec();
        let (mut difference, mut scale) = (0.0f64, [0.0f64; 2]);
        for j in 0..original.len() {
            let mut at = |step: f64| -> Result<f64> {
                let mut data = original.clone();
                data[j] += step;
                moved[i] = Tensor::new(input.shape(), data)?;
                value(&moved)
            };
            let numeric = (8.0 * (at(h)? - at(-h)?) - (at(2.0 * h)? - at(-2.0 * h)?)) / (12.0 * h);
            difference += (computed[j] - numeric).powi(2);
            scale[0] += computed[j].powi(2);
            scale[1] += numeric.powi(2);
        }
        let norm = scale[0].max(scale[1]).sqrt();
        checks.push(GradientCheck { input: i, relative_error: if norm == 0.0 { 0.0 } else { difference.sqrt() / norm } });
    }
    Ok(checks)
}
