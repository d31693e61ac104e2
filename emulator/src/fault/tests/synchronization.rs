//! Barriers, waits, fences, mbarriers, and what the lanes of a warp do together.

use super::super::Operator;
use super::expect;

#[test]
fn barriers() {
    let body = "bar.sync 0;\nbar.warp.sync -1;\nbarrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;
        bar.arrive 2, 96;\nbar.sync 2, 96;\nbar.sync 3, 64;\nbar.red.or.pred %p1, 0, !%p2;\nmembar.gl;";
    expect(
        Operator::DropBarrier,
        body,
        &[
            "dropped `bar.sync 0;`",
            "dropped `bar.warp.sync -1;`",
            "dropped `barrier.cluster.arrive.release.aligned;`",
            "dropped `barrier.cluster.wait.acquire.aligned;`",
            "dropped `bar.arrive 2, 96;`",
            "dropped `bar.sync 2, 96;`",
            "dropped `bar.sync 3, 64;`",
            "`bar.red.or.pred %p1, 0, !%p2;` became `not.pred %p1, %p2;`",
        ],
    );
    expect(
        Operator::ChangeBarrier,
        body,
        &[
            "`bar.sync 0;` became `bar.sync 0, 32;`",
            "`bar.arrive 2, 96;` became `bar.arrive 2, 128;`",
            "`bar.arrive 2, 96;` became `bar.arrive 3, 96;`",
            "`bar.sync 2, 96;` became `bar.sync 2, 128;`",
            "`bar.sync 2, 96;` became `bar.sync 3, 96;`",
            "`bar.sync 3, 64;` became `bar.sync 3, 96;`",
            "`bar.red.or.pred %p1, 0, !%p2;` became `bar.red.or.pred %p1, 0, 32, !%p2;`",
        ],
    );
}

#[test]
fn waits_commits_and_fences() {
    let body = "cp.async.commit_group;\ncp.async.wait_group 1;\ncp.async.wait_all;\ncp.async.bulk.commit_group;
        cp.async.bulk.wait_group.read 0;\nwgmma.fence.sync.aligned;\nwgmma.commit_group.sync.aligned;
        wgmma.wait_group.sync.aligned 0;\n@%p1 mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], %r2;
        fence.proxy.async.shared::cta;\nfence.acq_rel.gpu;\nmembar.sys;\nmembar.cta;\nfence.mbarrier_init.release.cluster;";
    expect(
        Operator::DropWait,
        body,
        &[
            "dropped `cp.async.wait_group 1;`",
            "dropped `cp.async.wait_all;`",
            "dropped `cp.async.bulk.wait_group.read 0;`",
            "dropped `wgmma.wait_group.sync.aligned 0;`",
            "`@%p1 mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], %r2;` became `@%p1 mov.pred %p2, -1;`",
        ],
    );
    expect(
        Operator::WeakenWait,
        body,
        &[
            "`cp.async.wait_group 1;` became `cp.async.wait_group 2;`",
            "`cp.async.wait_all;` became `cp.async.wait_group 1;`",
            "`cp.async.bulk.wait_group.read 0;` became `cp.async.bulk.wait_group.read 1;`",
            "`wgmma.wait_group.sync.aligned 0;` became `wgmma.wait_group.sync.aligned 1;`",
        ],
    );
    expect(
        Operator::DropCommit,
        body,
        &[
            "dropped `cp.async.commit_group;`",
            "dropped `cp.async.bulk.commit_group;`",
            "dropped `wgmma.commit_group.sync.aligned;`",
        ],
    );
    expect(
        Operator::DropFence,
        body,
        &[
            "dropped `wgmma.fence.sync.aligned;`",
            "dropped `fence.proxy.async.shared::cta;`",
            "dropped `fence.acq_rel.gpu;`",
            "dropped `membar.sys;`",
            "dropped `membar.cta;`",
            "dropped `fence.mbarrier_init.release.cluster;`",
        ],
    );
    expect(
        Operator::WeakenFence,
        body,
        &[
            "`fence.proxy.async.shared::cta;` became `fence.acq_rel.cta;`",
            "`fence.acq_rel.gpu;` became `fence.acq_rel.cta;`",
            "`membar.sys;` became `membar.gl;`",
        ],
    );
}

#[test]
fn mbarriers() {
    // %r3 is the phase, toggled by each wait; %r4 a count in a register
    let body = "mov.u32 %r3, 0;\nmov.u32 %r4, 128;\nmov.u32 %r5, 0;\nmbarrier.init.shared::cta.b64 [%r1], %r4;
        mbarrier.init.shared::cta.b64 [%r1+8], 1;\nmbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 4096;
        mbarrier.expect_tx.shared::cta.b64 [%r1], %r21;\nmbarrier.arrive.shared::cta.b64 _, [%r1];
        mbarrier.arrive.shared::cta.b64 %rd1, [%r1], 2;\ncp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r1];
        $L:\nmbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], %r3;\n@!%p1 bra $L;\nxor.b32 %r3, %r3, 1;
        mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r1], 1;";
    expect(
        Operator::WrongPhase,
        body,
        &[
            "`mov.u32 %r3, 0;` became `mov.u32 %r3, 1;`",
            "`mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], %r3;` became \
             `xor.b32 %fault, %r3, 1; mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1], %fault;`",
            "`mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r1], 1;` became \
             `mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r1], 0;`",
        ],
    );
    expect(
        Operator::WrongTransactionBytes,
        body,
        &[
            "`mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 4096;` became \
             `mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 4112;`",
            "`mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 4096;` became \
             `mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 4080;`",
            "`mbarrier.expect_tx.shared::cta.b64 [%r1], %r21;` became \
             `add.u32 %fault, %r21, 16; mbarrier.expect_tx.shared::cta.b64 [%r1], %fault;`",
            "`mbarrier.expect_tx.shared::cta.b64 [%r1], %r21;` became \
             `add.u32 %fault, %r21, -16; mbarrier.expect_tx.shared::cta.b64 [%r1], %fault;`",
        ],
    );
    expect(
        Operator::WrongArrivalCount,
        body,
        &[
            "`mbarrier.init.shared::cta.b64 [%r1], %r4;` became `mbarrier.init.shared::cta.b64 [%r1], 129;`",
            "`mbarrier.init.shared::cta.b64 [%r1], %r4;` became `mbarrier.init.shared::cta.b64 [%r1], 127;`",
            "`mbarrier.init.shared::cta.b64 [%r1+8], 1;` became `mbarrier.init.shared::cta.b64 [%r1+8], 2;`",
            "`mbarrier.arrive.shared::cta.b64 %rd1, [%r1], 2;` became `mbarrier.arrive.shared::cta.b64 %rd1, [%r1], 3;`",
        ],
    );
    expect(
        Operator::DropArrive,
        body,
        &[
            "dropped `mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 4096;`",
            "dropped `mbarrier.expect_tx.shared::cta.b64 [%r1], %r21;`",
            "dropped `mbarrier.arrive.shared::cta.b64 _, [%r1];`",
            "dropped `mbarrier.arrive.shared::cta.b64 %rd1, [%r1], 2;`",
            "dropped `cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r1];`",
        ],
    );
}

#[test]
fn lanes() {
    let body = "mov.u32 %r1, -1;\nshfl.sync.bfly.b32 %r2|%p1, %r3, 16, 31, %r1;\nshfl.sync.down.b32 %r2, %r3, 1, 31, 65535;
        vote.sync.ballot.b32 %r2, %p1, 1;\nbar.warp.sync %r4;\nredux.sync.add.s32 %r2, %r3, -1;
        shfl.sync.idx.b32 %r2, %r3, %r4, 31, -1;";
    expect(
        Operator::WrongMask,
        body,
        &[
            "`shfl.sync.bfly.b32 %r2|%p1, %r3, 16, 31, %r1;` became `shfl.sync.bfly.b32 %r2|%p1, %r3, 16, 31, -2;`",
            "`shfl.sync.down.b32 %r2, %r3, 1, 31, 65535;` became `shfl.sync.down.b32 %r2, %r3, 1, 31, 65534;`",
            "`shfl.sync.down.b32 %r2, %r3, 1, 31, 65535;` became `shfl.sync.down.b32 %r2, %r3, 1, 31, -1;`",
            "`vote.sync.ballot.b32 %r2, %p1, 1;` became `vote.sync.ballot.b32 %r2, %p1, -1;`",
            "`bar.warp.sync %r4;` became `bar.warp.sync -1;`",
            "`redux.sync.add.s32 %r2, %r3, -1;` became `redux.sync.add.s32 %r2, %r3, -2;`",
            "`shfl.sync.idx.b32 %r2, %r3, %r4, 31, -1;` became `shfl.sync.idx.b32 %r2, %r3, %r4, 31, -2;`",
        ],
    );
    expect(
        Operator::WrongShuffle,
        body,
        &[
            "`shfl.sync.bfly.b32 %r2|%p1, %r3, 16, 31, %r1;` became `shfl.sync.bfly.b32 %r2|%p1, %r3, 8, 31, %r1;`",
            "`shfl.sync.bfly.b32 %r2|%p1, %r3, 16, 31, %r1;` became `shfl.sync.bfly.b32 %r2|%p1, %r3, 16, 7967, %r1;`",
            "`shfl.sync.down.b32 %r2, %r3, 1, 31, 65535;` became `shfl.sync.down.b32 %r2, %r3, 2, 31, 65535;`",
            "`shfl.sync.down.b32 %r2, %r3, 1, 31, 65535;` became `shfl.sync.down.b32 %r2, %r3, 1, 7967, 65535;`",
            "`shfl.sync.idx.b32 %r2, %r3, %r4, 31, -1;` became \
             `add.u32 %fault, %r4, 1; shfl.sync.idx.b32 %r2, %r3, %fault, 31, -1;`",
            "`shfl.sync.idx.b32 %r2, %r3, %r4, 31, -1;` became `shfl.sync.idx.b32 %r2, %r3, %r4, 7967, -1;`",
        ],
    );
}
