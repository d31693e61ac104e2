//! Guards, bounds, operands, stores and initial values.

use super::super::Operator;
use super::expect;

#[test]
fn bounds_and_loops() {
    let body = "setp.ge.s32 %p1, %r20, %r21;\nsetp.lt.u32 %p2, %r20, 32;\nsetp.lt.f32 %p3, %f1, %f2;\nsetp.eq.s32 %p4, %r20, 0;
        setp.ge.u32 %p5, %r20, 0;\n$L:\nadd.s32 %r1, %r1, 4;\nsetp.lt.s32 %p6, %r1, 64;\nand.pred %p7, %p6, %p1;\n@%p7 bra $L;
        $M:\nadd.s32 %r2, %r2, -2;\nsetp.ne.s32 %p8, %r2, 0;\n@%p8 bra $M;
        $N:\nsetp.gt.s32 %p6, %r3, %r21;\n@%p6 bra $N;\n$O:\nsetp.eq.s32 %p0, %r4, 0;\n@%p0 bra $O;";
    expect(
        Operator::BoundsOffByOne,
        body.split_once("\n$L:").unwrap().0,
        &[
            "`setp.ge.s32 %p1, %r20, %r21;` became `setp.gt.s32 %p1, %r20, %r21;`",
            "`setp.lt.u32 %p2, %r20, 32;` became `setp.le.u32 %p2, %r20, 32;`",
            "`setp.lt.u32 %p2, %r20, 32;` became `setp.lt.u32 %p2, %r20, 31;`",
            "`setp.ge.u32 %p5, %r20, 0;` became `setp.gt.u32 %p5, %r20, 0;`",
        ],
    );
    expect(
        Operator::LoopBound,
        body.split_once("%r20, 0;\n").unwrap().1,
        &[
            "`setp.lt.s32 %p6, %r1, 64;` became `setp.lt.s32 %p6, %r1, 68;`",
            "`setp.lt.s32 %p6, %r1, 64;` became `setp.lt.s32 %p6, %r1, 60;`",
            "`setp.ne.s32 %p8, %r2, 0;` became `setp.ne.s32 %p8, %r2, -2;`",
            "`setp.ne.s32 %p8, %r2, 0;` became `setp.ne.s32 %p8, %r2, 2;`",
            "`setp.gt.s32 %p6, %r3, %r21;` became `add.s32 %fault, %r21, 1; setp.gt.s32 %p6, %r3, %fault;`",
            "`setp.gt.s32 %p6, %r3, %r21;` became `add.s32 %fault, %r21, -1; setp.gt.s32 %p6, %r3, %fault;`",
        ],
    );
    expect(
        Operator::SwapOperands,
        "setp.lt.s32 %p1, %r1, %r2;\nsetp.eq.s32 %p1, %r1, %r2;\nsub.f32 %f1, %f2, %f3;\nsub.s32 %r1, %r2, %r2;
        div.rn.f32 %f1, %f2, %f3;\nadd.s32 %r1, %r2, %r3;\nrem.s32 %r1, %r2, 5;",
        &[
            "`setp.lt.s32 %p1, %r1, %r2;` became `setp.lt.s32 %p1, %r2, %r1;`",
            "`sub.f32 %f1, %f2, %f3;` became `sub.f32 %f1, %f3, %f2;`",
            "`div.rn.f32 %f1, %f2, %f3;` became `div.rn.f32 %f1, %f3, %f2;`",
            "`rem.s32 %r1, %r2, 5;` became `rem.s32 %r1, 5, %r2;`",
        ],
    );
}

#[test]
fn guards() {
    let body = "$B:\n@%p1 bra $F;\n@!%p2 add.s32 %r1, %r1, 1;\nbra.uni $F;\n@%p3 bra $B;\n$F:";
    expect(
        Operator::NegateGuard,
        body,
        &[
            "`@%p1 bra $F;` became `@!%p1 bra $F;`",
            "`@!%p2 add.s32 %r1, %r1, 1;` became `@%p2 add.s32 %r1, %r1, 1;`",
            "`@%p3 bra $B;` became `@!%p3 bra $B;`",
        ],
    );
    expect(
        Operator::DropGuard,
        body,
        &[
            "dropped `@%p1 bra $F;`",
            "`@%p1 bra $F;` became `bra $F;`",
            "`@!%p2 add.s32 %r1, %r1, 1;` became `add.s32 %r1, %r1, 1;`",
            "dropped `@%p3 bra $B;`", // always taken, it would never end
        ],
    );
}

#[test]
fn vectors_and_fragments() {
    let body = "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];\nst.global.v2.f32 [%rd1], {%f1, %f1};\nld.global.f32 %f1, [%rd1];
        mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r3}, {%f5, %f5, %f5, %f5};";
    expect(
        Operator::SwapComponents,
        body,
        &["`ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];` became `ld.global.v4.f32 {%f4, %f2, %f3, %f1}, [%rd1];`"],
    );
    let product =
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r3}, {%f5, %f5, %f5, %f5};";
    expect(Operator::SwapFragments, body, &[&format!("`{product}` became `{}`", product.replace("%r1, %r2", "%r2, %r1"))]);
}

#[test]
fn atomics() {
    expect(
        Operator::SplitAtomic,
        "@%p1 atom.global.add.f32 %f1, [%rd1+4], %f2;\nred.shared.max.s32 [%r1], %r2;\natom.global.inc.u32 %r1, [%rd1], 7;
        atom.acq_rel.gpu.global.cas.b32 %r1, [%rd1], %r2, %r3;",
        &[
            "`@%p1 atom.global.add.f32 %f1, [%rd1+4], %f2;` became `@%p1 ld.global.b32 %fault, [%rd1+4]; \
             @%p1 add.f32 %fault_result, %fault, %f2; @%p1 st.global.b32 [%rd1+4], %fault_result; @%p1 mov.b32 %f1, %fault;`",
            "`red.shared.max.s32 [%r1], %r2;` became \
             `ld.shared.b32 %fault, [%r1]; max.s32 %fault_result, %fault, %r2; st.shared.b32 [%r1], %fault_result;`",
            "`red.shared.max.s32 [%r1], %r2;` became `st.shared.b32 [%r1], %r2;`",
            "`atom.acq_rel.gpu.global.cas.b32 %r1, [%rd1], %r2, %r3;` became `ld.global.b32 %fault, [%rd1]; \
             setp.eq.b32 %fault_result, %fault, %r2; @%fault_result st.global.b32 [%rd1], %r3; mov.b32 %r1, %fault;`",
        ],
    );
}

#[test]
fn initial_values() {
    // %f1 is added to, %f2 starts %f3, %f5 is what a product adds to; %r1 is a constant for ever
    let body = "mov.f32 %f1, 0f00000000;\nmov.f32 %f2, 0f00000000;\nmov.f32 %f3, %f2;\nmov.u32 %r1, 0;\nmov.f32 %f4, 0f3F800000;
        mov.f32 %f5, 0f00000000;\nadd.f32 %f1, %f1, %f4;\nadd.f32 %f3, %f3, %f4;\nadd.f32 %f4, %f4, %f4;
        mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f6, %f7, %f8, %f9}, {%r1, %r2}, {%r3}, {%f5, %f5, %f5, %f5};";
    expect(
        Operator::DropInitial,
        body,
        &[
            "`mov.f32 %f1, 0f00000000;` became `mov.f32 %f1, %fault;`",
            "`mov.f32 %f2, 0f00000000;` became `mov.f32 %f2, %fault;`",
            "`mov.f32 %f5, 0f00000000;` became `mov.f32 %f5, %fault;`",
        ],
    );
}
