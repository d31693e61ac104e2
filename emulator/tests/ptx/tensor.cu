// The operand forms of the tensor-core and bulk-copy instructions: read by the parser's tests, never run.
struct alignas(64) TensorMap {
    char bytes[128];
};

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(256, 1)
    tensor(const __grid_constant__ TensorMap map, float* out, unsigned long long descriptor) {
    extern __shared__ __align__(1024) char tile[];
    unsigned shared = (unsigned)__cvta_generic_to_shared(tile), barrier = shared + 4096;
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\nfence.mbarrier_init.release.cluster;" ::"r"(barrier), "r"(1));
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(4096));
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint\n"
                 "    [%0], [%1, {%2, %3}], [%4], %5, %6;" ::"r"(shared), "l"(&map), "r"(0), "r"(1), "r"(barrier), "h"((short)3),
                 "l"(0x12F0000000000000ull) : "memory");
    asm volatile("cp.async.bulk.tensor.4d.im2col.shared::cluster.global.mbarrier::complete_tx::bytes\n"
                 "    [%0], [%1, {%2, %3, %3, %3}], [%4], {%5, %5};" ::"r"(shared), "l"(&map), "r"(0), "r"(1), "r"(barrier),
                 "h"((short)3) : "memory");
    asm volatile("{\n.reg .pred done;\nWAIT:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1, 0x989680;\n"
                 "@done bra DONE;\nbra WAIT;\nDONE:\n}" ::"r"(barrier), "r"(0));
    asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; @p prefetch.tensormap [%0]; }" ::"l"(&map));
    unsigned a[4];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(shared));
    float d[8];
    for (int i = 0; i < 8; i++) d[i] = out[i];
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%6,%7}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]));
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;\nwgmma.fence.sync.aligned;");
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7}, %8, %9, p, 1, -1, 0, 1;\n}\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
                 : "l"(descriptor), "l"(descriptor + 2), "r"(1));
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
    for (int i = 0; i < 8; i++) out[i] = d[i];
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1,%2}], [%3];" ::"l"(&map), "r"(0), "r"(0), "r"(shared));
    asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;");
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(out), "r"(8));
    asm volatile("bar.sync %0, 128;\nbarrier.cluster.arrive.release.aligned;" ::"r"(1));
}
