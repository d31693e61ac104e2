//! The shapes and types in which the embedding's kernels are proven.

use std::collections::BTreeSet;

use super::kernel::{self, Extents, Sorted, Sorting};
use crate::gpu::ElementType;
use crate::ops::table::{Case, Operand, Problem, Traffic, Type, normal, widened};
use crate::rng::Philox;
use crate::with_precision;

/// Odd shapes, the models' in bf16. The kernels that sort have no activations, and their passes over shared memory depend on the ids.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let odd = [(1, 1, 1), (17, 5, 3), (511, 300, 130), (513, 7, 513), (700, 200_000, 8), (2000, 17, 136)];
    for (ids, vocab_size, hidden) in odd {
        let extents = Extents { ids, vocab_size, hidden };
        for element in ElementType::ALL {
            add(&mut cases, extents, element, Traffic::Unmeasured);
        }
        add_sort(&mut cases, extents);
    }
    add_sort(&mut cases, Extents { ids: 9000, vocab_size: 6400, hidden: 1 });
    add_sort(&mut cases, Extents { ids: 4097, vocab_size: 1 << 18, hidden: 1 });
    add(&mut cases, Extents { ids: 8192, vocab_size: 6400, hidden: 512 }, ElementType::BF16, Traffic::Streaming);
    cases
}

fn add(cases: &mut Vec<Case>, extents: Extents, element: ElementType, traffic: Traffic) {
    let shape = shape(extents);
    cases.push(Case::new("embedding", "forward", &shape, element, move || forward(extents, element, traffic)));
    cases.push(Case::new("embedding", "backward", &shape, element, move || backward(extents, traffic)));
}

fn add_sort(cases: &mut Vec<Case>, extents: Extents) {
    cases.push(Case::new("embedding", "sort", &shape(extents), ElementType::F32, move || sort(extents)));
}

fn shape(Extents { ids, vocab_size, hidden }: Extents) -> String {
    format!("{ids} of {vocab_size}x{hidden}")
}

/// Ids as in text: a few are frequent, and one of them makes up more than a tenth.
fn ids(extents: Extents) -> Vec<usize> {
    let (philox, vocab_size) = (Philox::new(3), extents.vocab_size);
    let rank = |i: u64| (vocab_size as f64).powf(philox.uniform(i)) as usize - 1;
    (0..extents.ids as u64).map(|i| (rank(i) * 7919 + 5) % vocab_size).collect()
}

fn integers(values: impl IntoIterator<Item = usize>) -> Vec<f64> {
    values.into_iter().map(|x| x as f64).collect()
}

/// Where a table has only these rows touched, their bytes.
fn touched(extents: Extents, bytes: usize) -> u64 {
    let rows: BTreeSet<usize> = ids(extents).into_iter().collect();
    (rows.len() * extents.hidden * bytes) as u64
}

fn forward(extents: Extents, element: ElementType, traffic: Traffic) -> Problem {
    let Extents { ids: n, vocab_size, hidden } = extents;
    // Every row that an id names must be fetched, again and again unless the cache has kept it.
    let fetched = (n * hidden * element.bytes()) as u64;
    let table = Operand::input("table", Type::Activation, [vocab_size, hidden], normal(vocab_size * hidden, 1)).touching(fetched);
    Problem {
        operands: vec![
            Operand::output("y", Type::Activation, [n, hidden]),
            table,
            Operand::input("ids", Type::I32, [1, n], integers(ids(extents))),
        ],
        run: Box::new(move |on| {
            kernel::forward(on.context(), extents, on.activations_mut("y")?, on.activations("table")?, on.slice("ids")?)
        }),
        reference: Box::new(move |_, host| {
            let (table, ids) = (host.get::<f64>("table"), host.get::<f64>("ids"));
            vec![("y", ids.iter().flat_map(|&id| table[id as usize * hidden..][..hidden].to_vec()).collect())]
        }),
        flops: 0,
        traffic,
    }
}

/// Positions sorted by id.
fn order(ids: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|&n| ids[n]);
    order
}

fn sort(extents: Extents) -> Problem {
    let n = extents.ids;
    let workspace = |name, len| Operand::workspace(name, Type::I32, len);
    Problem {
        operands: vec![
            Operand::output("sorted", Type::I32, [1, n]),
            Operand::output("order", Type::I32, [1, n]),
            workspace("keys", n),
            workspace("first_order", n),
            workspace("counts", extents.counts()),
            Operand::input("ids", Type::I32, [1, n], integers(ids(extents))),
        ],
        run: Box::new(move |on| {
            let first_pass = [on.slice_mut("keys")?, on.slice_mut("first_order")?];
            let (sorted, order, counts) = (on.slice_mut("sorted")?, on.slice_mut("order")?, on.slice_mut("counts")?);
            kernel::sort(on.context(), extents, Sorting { sorted, order, first_pass, counts }, on.slice("ids")?)
        }),
        reference: Box::new(move |_, host| {
            let ids: Vec<usize> = host.get::<f64>("ids").into_iter().map(|id| id as usize).collect();
            let order = order(&ids);
            vec![("sorted", integers(order.iter().map(|&n| ids[n]))), ("order", integers(order))]
        }),
        flops: 0,
        traffic: Traffic::Unmeasured,
    }
}

fn backward(extents: Extents, traffic: Traffic) -> Problem {
    let Extents { ids: n, vocab_size, hidden } = extents;
    let ids = ids(extents);
    let order = order(&ids);
    let len = vocab_size * hidden;
    let input = |name, values| Operand::input(name, Type::I32, [1, n], integers(values));
    Problem {
        operands: vec![
            Operand::in_out("dtable", Type::F32, [vocab_size, hidden], normal(len, 1)).touching(touched(extents, 4)),
            Operand::workspace("partial", Type::F32, extents.partials() * hidden),
            Operand::input("dy", Type::Activation, [n, hidden], normal(n * hidden, 2)),
            input("sorted", order.iter().map(|&n| ids[n]).collect()),
            input("order", order),
        ],
        run: Box::new(move |on| {
            let sorted = Sorted { sorted: on.slice("sorted")?, order: on.slice("order")? };
            let (dtable, partial) = (on.slice_mut("dtable")?, on.slice_mut("partial")?);
            kernel::backward(on.context(), extents, dtable, partial, on.activations("dy")?, sorted)
        }),
        reference: Box::new(move |arithmetic, host| {
            with_precision!(arithmetic, P => {
                type F = <P as crate::ops::table::Precision>::Number;
                let (mut dtable, dy) = (host.get::<F>("dtable"), host.get::<F>("dy"));
                for (&id, dy) in ids.iter().zip(dy.chunks_exact(hidden)) {
                    dtable[id * hidden..][..hidden].iter_mut().zip(dy).for_each(|(sum, &dy)| *sum += dy);
                }
                vec![("dtable", widened(dtable))]
            })
        }),
        flops: (n * hidden) as u64,
        traffic,
    }
}
