//! Addresses: offsets, strides, stages, alignment.

use super::super::Operator;
use super::{check, expect, found, kernel};

#[test]
fn shifted_and_strided_indices() {
    // %r2 feeds the address in units of elements, for 4 bytes of the load are one of them; %r6 and %r7 feed no address
    let body = "add.s32 %r2, %r20, 5;\nmul.wide.s32 %rd1, %r2, 4;\nadd.s64 %rd2, %rd19, %rd1;\nadd.s64 %rd3, %rd2, 4;
        ld.global.f32 %f1, [%rd3+8];\nadd.s32 %r6, %r20, 5;\nshl.b32 %r7, %r20, 2;\nshl.b32 %r8, %r20, 4;\nmov.u64 %rd4, tile+16;
        mad.lo.s32 %r9, %r20, %r21, %r8;\nst.shared.v2.f32 [%r9], {%f1, %f2};\nst.global.f32 [%rd4], %f1;";
    expect(
        Operator::ShiftIndex,
        body,
        &[
            "`add.s32 %r2, %r20, 5;` became `add.s32 %r2, %r20, 6;`",
            "`add.s32 %r2, %r20, 5;` became `add.s32 %r2, %r20, 4;`",
            "`add.s64 %rd3, %rd2, 4;` became `add.s64 %rd3, %rd2, 8;`", // 0 is left alone
            "`ld.global.f32 %f1, [%rd3+8];` became `ld.global.f32 %f1, [%rd3+12];`",
            "`ld.global.f32 %f1, [%rd3+8];` became `ld.global.f32 %f1, [%rd3+4];`",
            "`mov.u64 %rd4, tile+16;` became `mov.u64 %rd4, tile+20;`",
            "`mov.u64 %rd4, tile+16;` became `mov.u64 %rd4, tile+12;`",
            "`st.shared.v2.f32 [%r9], {%f1, %f2};` became `st.shared.v2.f32 [%r9+8], {%f1, %f2};`",
            "`st.shared.v2.f32 [%r9], {%f1, %f2};` became `st.shared.v2.f32 [%r9+-8], {%f1, %f2};`",
            "`st.global.f32 [%rd4], %f1;` became `st.global.f32 [%rd4+4], %f1;`",
            "`st.global.f32 [%rd4], %f1;` became `st.global.f32 [%rd4+-4], %f1;`",
        ],
    );
    expect(
        Operator::SwapStride,
        body,
        &[
            "`mul.wide.s32 %rd1, %r2, 4;` became `mul.wide.s32 %rd1, %r2, 8;`",
            "`mul.wide.s32 %rd1, %r2, 4;` became `mul.wide.s32 %rd1, %r2, 2;`",
            "`shl.b32 %r8, %r20, 4;` became `shl.b32 %r8, %r20, 5;`",
            "`shl.b32 %r8, %r20, 4;` became `shl.b32 %r8, %r20, 3;`",
            "`mad.lo.s32 %r9, %r20, %r21, %r8;` became `mad.lo.s32 %r9, %r8, %r21, %r20;`",
        ],
    );
    expect(
        Operator::MisalignAccess,
        body,
        &["`st.shared.v2.f32 [%r9], {%f1, %f2};` became `st.shared.v2.f32 [%r9+4], {%f1, %f2};`"],
    );
}

#[test]
fn indices_of_copies() {
    let copy = "cp.async.cg.shared.global [%r1], [%rd1], 16;";
    let matrix = "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r2, %r3}, [%r4];";
    let tensor = "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd2, {%r5, %r6}], [%r7];";
    let bulk = "cp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r1], 64;";
    let body = &[copy, matrix, tensor, bulk].join("\n");
    let changed = |text: &str, from: &str, to: &str| format!("`{text}` became `{}`", text.replace(from, to));
    let expected = [
        changed(copy, "[%r1]", "[%r1+16]"),
        changed(copy, "[%rd1]", "[%rd1+16]"),
        changed(matrix, "[%r4]", "[%r4+16]"),
        changed(matrix, "[%r4]", "[%r4+-16]"),
        changed(tensor, "[%r1]", "[%r1+128]"),
        changed(tensor, "%r5", "%fault").replace("became `", "became `add.s32 %fault, %r5, 1; "),
        changed(bulk, "[%rd1]", "[%rd1+16]"),
        changed(bulk, "[%r1]", "[%r1+16]"),
    ];
    expect(Operator::ShiftIndex, body, &expected.each_ref().map(String::as_str));
    let displacements: Vec<_> = found(&kernel(body), Operator::MisalignAccess).iter().map(|fault| fault.line).collect();
    assert_eq!(displacements, [14, 14, 15, 16, 17, 17]);
    expect(
        Operator::DropStore,
        "cp.async.cg.shared.global [%r1], [%rd1], 16;\ncp.async.wait_group 0;\ncp.async.wait_all;\ncp.async.commit_group;
        st.global.f32 [%rd1], %f1;\nld.global.f32 %f1, [%rd1];\ncp.async.mbarrier.arrive.shared::cta.b64 [%r1];
        {\n.param .b32 a;\nst.param.b32 [a], %r1;\n}",
        &["dropped `cp.async.cg.shared.global [%r1], [%rd1], 16;`", "dropped `st.global.f32 [%rd1], %f1;`"],
    );
}

#[test]
fn descriptors_are_addresses() {
    let product = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1, %f2, %f3, %f4}, %rd1, %rd2, %p1, 1, 1, 0, 0;";
    let stride = 64_u64 << 32;
    let body = format!("or.b64 %rd1, %rd5, {};\nor.b64 %rd7, %rd5, {stride};\n{product}", stride | 2);
    expect(
        Operator::ShiftIndex,
        &body,
        &[&format!("`or.b64 %rd1, %rd5, {};` became `or.b64 %rd1, %rd5, {};`", stride | 2, stride | 3)],
    );
    expect(
        Operator::SwapStride,
        &body,
        &[&format!("`or.b64 %rd1, %rd5, {};` became `or.b64 %rd1, %rd5, {};`", stride | 2, (2 * stride) | 2)],
    );
    expect(Operator::SwapFragments, &body, &[&format!("`{product}` became `{}`", product.replace("%rd1, %rd2", "%rd2, %rd1"))]);
}

#[test]
fn stages() {
    // %r1 is the same for all threads, %r20 is not; %rd1 feeds global memory, and %r12 is part of a remainder
    let body = "and.b32 %r1, %r21, 1;\nshl.b32 %r2, %r1, 11;\nshl.b32 %r3, %r20, 4;\nadd.s32 %r4, %r2, %r3;
        mad.lo.s32 %r5, %r1, 1024, %r4;\nst.shared.u32 [%r5], %r20;\nmov.u32 %r9, 0;\nxor.b32 %r9, %r9, 2048;
        ld.shared.u32 %r10, [%r9];\nmul.wide.u32 %rd1, %r1, 64;\nld.global.u32 %r11, [%rd1];
        mul.lo.s32 %r12, %r1, 3;\nsub.s32 %r13, %r21, %r12;\nld.shared.u32 %r14, [%r13];";
    expect(
        Operator::MergeStages,
        body,
        &[
            "`shl.b32 %r2, %r1, 11;` became `mov.b32 %r2, 0;`",
            "`mad.lo.s32 %r5, %r1, 1024, %r4;` became `mov.b32 %r5, %r4;`",
            "`xor.b32 %r9, %r9, 2048;` became `xor.b32 %r9, %r9, 0;`",
        ],
    );
}

#[test]
fn names_belong_to_their_block() {
    // the inner %r1 is another register: the outer constant feeds no address, the inner one does
    let body = "add.s32 %r1, %r20, 3;\n{\n.reg .b32 %r1;\nadd.s32 %r1, %r20, 5;\nst.shared.u32 [%r1], %r20;\n}";
    let faults = found(&kernel(body), Operator::ShiftIndex);
    let lines: Vec<_> = faults.iter().map(|fault| (fault.line, fault.path.len())).collect();
    assert_eq!(lines, [(17, 2), (17, 2), (18, 2), (18, 2)]);
    faults.iter().for_each(|fault| check(&kernel(body), fault));
}

#[test]
fn the_block_of_a_remote_address_is_an_index() {
    let body = "add.s32 %r1, %r21, 2;\nmapa.shared::cluster.u32 %r2, %r3, %r1;\nst.shared::cluster.u32 [%r2], %r20;";
    let constants: Vec<_> = found(&kernel(body), Operator::ShiftIndex).into_iter().map(|fault| fault.description).collect();
    assert_eq!(
        constants[..2],
        ["`add.s32 %r1, %r21, 2;` became `add.s32 %r1, %r21, 3;`", "`add.s32 %r1, %r21, 2;` became `add.s32 %r1, %r21, 1;`"]
    );
}
