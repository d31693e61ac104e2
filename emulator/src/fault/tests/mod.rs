//! Each operator on a few instructions that it applies to and on near ones that it must leave alone, with the expected faults
//! written out by hand; and what holds for every mutant.

mod index;
mod synchronization;
mod value;

use super::{Class, Fault, Operator, apply, sites};
use crate::Error;
use crate::ptx::ast::{Location, Module};
use crate::ptx::parse;

/// A kernel `k` around some instructions, with registers, a parameter and shared memory to speak of. The first line of `body`
/// is line 14.
fn text(body: &str) -> String {
    format!(
        ".version 9.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 out, .param .u32 n)
{{
.reg .pred %p<9>;
.reg .b32 %r<40>;
.reg .f32 %f<20>;
.reg .b64 %rd<20>;
.shared .align 1024 .b8 tile[4096];
mov.u32 %r20, %tid.x;
ld.param.u32 %r21, [n];
ld.param.u64 %rd19, [out];
{body}
ret;
}}
"
    )
}

/// The same, parsed.
fn kernel(body: &str) -> Module {
    parse(&text(body)).unwrap_or_else(|error| panic!("{error}\n{body}"))
}

fn found(module: &Module, operator: Operator) -> Vec<Fault> {
    sites(module, "k").into_iter().filter(|fault| fault.operator == operator).collect()
}

/// The faults of one operator in `body` are exactly these, each keeps what every mutant keeps, and no text means the same twice.
fn expect(operator: Operator, body: &str, descriptions: &[&str]) {
    let module = kernel(body);
    let faults = found(&module, operator);
    let actual: Vec<_> = faults.iter().map(|fault| fault.description.as_str()).collect();
    assert_eq!(actual, descriptions, "{operator:?} in\n{body}");
    faults.iter().for_each(|fault| check(&module, fault));
}

/// The printed mutant differs in the one line of the fault, where it lacks the instruction; it parses to the mutant again; and
/// the module is as it was.
fn check(module: &Module, fault: &Fault) {
    let (before, text) = (module.clone(), module.to_string());
    let mutant = apply(module, fault).unwrap();
    assert_eq!(*module, before);
    assert_eq!(apply(module, fault).unwrap(), mutant);
    let mutated = mutant.to_string();
    assert_eq!(parse(&mutated).unwrap_or_else(|error| panic!("{error}\n{mutated}")), mutant, "{}", fault.description);
    assert_eq!(text.lines().count(), mutated.lines().count());
    // the braces of a block stand at the ends of lines, after the last statement
    let bare = |line: &'_ str| line.trim().trim_end_matches([' ', '{', '}']).to_string();
    let lines = text.lines().map(bare).zip(mutated.lines().map(bare)).enumerate();
    let changed: Vec<_> = lines.filter(|(_, (old, new))| old != new).collect();
    let [(number, (old, new))] = changed.as_slice() else { panic!("{}: {changed:?}", fault.description) };
    assert_eq!(*number + 1, fault.line as usize);
    match fault.description.strip_prefix("dropped ") {
        Some(dropped) => assert_eq!((dropped, new.as_str()), (format!("`{old}`").as_str(), "")),
        None => {
            let (was, is) = fault.description.split_once(" became ").unwrap();
            assert_eq!(was, format!("`{old}`"));
            let instructions: Vec<_> = is.trim_matches('`').split_inclusive(';').map(str::trim).collect();
            assert!(instructions.iter().all(|instruction| new.contains(instruction)), "{is} not in {new}");
        }
    }
}

#[test]
fn device_functions_are_searched_once_after_the_kernel() {
    let text = ".version 9.0
.target sm_90a
.address_size 64
.func unused() { bar.sync 9; ret; }
.func inner() { bar.sync 2; ret; }
.func outer() { bar.sync 1; call.uni inner; ret; }
.visible .entry k() {
.loc 1 42 7
bar.sync 0;
call.uni outer;
call.uni outer;
ret;
}
.visible .entry other() { bar.sync 8; ret; }
.file 1 \"k.cu\"
";
    let module = parse(text).unwrap();
    let faults = found(&module, Operator::DropBarrier);
    let functions: Vec<_> = faults.iter().map(|fault| fault.function.as_str()).collect();
    assert_eq!(functions, ["k", "outer", "inner"]);
    assert_eq!(faults[0].location, Some(Location { file: 1, line: 42, column: 7 }));
    assert_eq!((faults[0].line, faults[0].class()), (9, Class::Synchronization));
    assert!(sites(&module, "nobody").is_empty());
}

#[test]
fn no_sites() {
    assert_eq!(sites(&kernel("add.f32 %f1, %f2, %f3;\nmov.u32 %r1, 7;"), "k"), []);
}

#[test]
fn a_fault_of_another_module_is_refused() {
    let module = kernel("bar.sync 0;");
    let fault = found(&module, Operator::DropBarrier).remove(0);
    let foreign = [
        Fault { function: "other".into(), ..fault.clone() },
        Fault { path: vec![99], ..fault.clone() },
        Fault { path: vec![], ..fault.clone() },
        Fault { path: [fault.path.as_slice(), &[0]].concat(), ..fault.clone() },
        Fault { variant: 1, ..fault.clone() },
        Fault { operator: Operator::DropFence, ..fault.clone() },
    ];
    for fault in foreign {
        assert!(matches!(apply(&module, &fault), Err(Error::Invalid { line: 14, .. })), "{fault:?}");
    }
}

#[test]
fn malformed_instructions_have_no_sites_but_do_no_harm() {
    let opcodes = [
        "bar.sync",
        "bar.red.or.pred",
        "mbarrier.try_wait.parity.b64",
        "mbarrier.init.b64",
        "mbarrier.arrive.expect_tx.b64",
        "shfl.sync.b32",
        "vote.sync.ballot.b32",
        "ld.global.u32",
        "st.v4.f32",
        "cp.async.ca.shared.global",
        "cp.async.bulk.tensor.1d",
        "mul.lo.s32",
        "shl.b32",
        "setp.lt.s32",
        "atom.add.u32",
        "red.add.u32",
        "mma.sync",
        "wgmma.mma_async",
        "mov.u32",
        "bra",
        "fence",
        "call",
        "sub.s32",
        "cp.async.multicast::cluster.L2::cache_hint",
    ];
    for operands in ["", " %r1", " 0", " [%r1]", " {}", " [%r1], [%r2]", " %r1, 18446744073709551615, 18446744073709551615, 0"] {
        let body: String = opcodes.map(|opcode| format!("@%p1 {opcode}{operands};\n")).concat();
        let module = kernel(&body);
        sites(&module, "k").iter().for_each(|fault| assert_ne!(apply(&module, fault).unwrap(), module));
    }
}

#[test]
fn the_table_has_the_order_of_the_variants() {
    for (position, operator) in Operator::ALL.into_iter().enumerate() {
        assert_eq!(operator as usize, position);
        assert!(!operator.description().is_empty() && !operator.class().to_string().is_empty());
    }
}
