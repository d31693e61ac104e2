//! Embedding: `y[n] = table[ids[n]]`.
//!
//! Backward: `dtable[ids[n]] += dy[n]`, in the order of n, so that the sum's bits never change. Bound by memory: 2·N·H elements.

pub mod cases;
pub mod kernel;

use std::sync::Arc;

use rayon::prelude::*;

use super::{add, inputs, shape_error};
use crate::cpu::gemm::Operand;
use crate::cpu::rows_per_task;
use crate::tape::{Op, Sink, Tape, Var};
use crate::tensor::{DType, Float, Tensor};
use crate::{Error, Result, with_float, with_weights};

/// The operation; see the module.
struct Embedding {
    ids: Arc<[i32]>,
}

/// `table` `[V, H]`, N `ids` → `[N, H]` in the table's type, f32 where that is bf16. An id outside 0..V is an error that names it.
pub fn embedding(tape: &mut Tape, table: &Var, ids: Arc<[i32]>) -> Result<Var> {
    tape.apply(Embedding { ids }, &[table])
}

impl Op for Embedding {
    type Saved = ();

    fn name(&self) -> &'static str {
        "embedding"
    }

    fn forward(&self, tensors: &[&Tensor]) -> Result<(Vec<Tensor>, ())> {
        let [table] = inputs("embedding", tensors)?;
        let &[vocab_size, hidden] = table.dims() else {
            return Err(shape_error("embedding", "table", table, "[V, H]"));
        };
        if let Some(&id) = self.ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocab_size)) {
            return Err(Error::TokenId { id: id.into(), vocab_size });
        }
        let activations = if table.dtype() == DType::BF16 { DType::F32 } else { table.dtype() };
        with_weights!("embedding", activations, table.dtype(), (F, W) => {
            let data = table.data::<W>()?;
            let y = Tensor::build::<F>([self.ids.len(), hidden], |y| {
                let rows = y.par_chunks_exact_mut(hidden).zip(self.ids.par_iter()).with_min_len(rows_per_task(hidden));
                rows.for_each(|(y, &id)| {
                    let row = &data[id as usize * hidden..][..hidden];
                    y.iter_mut().zip(row).for_each(|(y, &w)| *y = w.widen());
                });
            });
            Ok((vec![y], ()))
        })
    }

    fn backward(&self, (): (), dy: &[Option<Tensor>], sink: &mut Sink) -> Result<()> {
        let [Some(dy)] = dy else { return Ok(()) };
        let hidden = dy.shape().cols();
        with_float!("embedding", dy.dtype(), F => {
            let dy = dy.data::<F>()?;
            sink.write::<F>(0, |table, accumulate| {
                if !accumulate {
                    table.fill(F::of(0.0));
                }
                for (dy, &id) in dy.chunks_exact(hidden).zip(self.ids.iter()) {
                    add::accumulate(&mut table[id as usize * hidden..][..hidden], dy);
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_gradients, random};

    #[test]
    fn takes_rows() {
        let table = random([5, 3], 1);
        let y = embedding(&mut Tape::inference(), &table.clone().into(), [4, 0, 4].into()).unwrap();
        let (y, table) = (y.value().to_f64().unwrap(), table.to_f64().unwrap());
        assert_eq!([&y[..3], &y[3..6], &y[6..]], [&table[12..], &table[..3], &table[12..]]);
    }

    #[test]
    fn gradients_of_repeated_and_unused_rows() {
        assert_gradients(&[random([5, 3], 1)], |tape, v| embedding(tape, &v[0], [4, 0, 4, 2].into()));
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        for id in [5, -1] {
            let error = embedding(&mut Tape::inference(), &random([5, 3], 1).into(), [0, id].into()).unwrap_err();
            assert_eq!(error.to_string(), format!("token id {id} is outside the vocabulary of 5 entries"));
        }
    }
}
