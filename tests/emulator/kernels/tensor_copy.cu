// y[r,c] = x[r,c] * alpha + r through tensor maps.  x, y: [R, C] f32, boxes of 16 rows x 32 columns, 128-byte swizzle.
// A block owns 16 rows and walks over the columns: two stages of loads, two of stores.  What lies outside of the tensor comes as
// zeros and is not stored.  Row r of a box has its 16-byte unit u at u ^ (r % 8).
#include "ptx_sm90.cuh"

constexpr int ROWS = 16, COLUMNS = 32, BYTES = ROWS * COLUMNS * 4;

extern "C" __global__ void __launch_bounds__(THREADS) tensor_copy(const __grid_constant__ TensorMap y_map,
                                                                  const __grid_constant__ TensorMap x_map, int C, float alpha) {
    __shared__ __align__(1024) float in[2][ROWS * COLUMNS], out[2][ROWS * COLUMNS];
    __shared__ __align__(8) u64 full[2];
    const int tiles = (C + COLUMNS - 1) / COLUMNS, row0 = blockIdx.x * ROWS;

    auto load = [&](int tile) {
        const u32 barrier = shared_address(&full[tile % 2]);
        mbarrier_arrive_expect_tx(barrier, BYTES);
        tensor_load_2d(shared_address(in[tile % 2]), x_map, tile * COLUMNS, row0, barrier);
    };

    if (threadIdx.x == 0) {
        mbarrier_init(shared_address(&full[0]), 1);
        mbarrier_init(shared_address(&full[1]), 1);
        fence_mbarrier_init();
        load(0);
        if (tiles > 1) load(1);
    }
    __syncthreads();  // the barriers are ready

    for (int tile = 0; tile < tiles; tile++) {
        const int s = tile % 2;
        if (threadIdx.x == 0) bulk_wait_read<1>();  // the store before the last one has read out[s]
        __syncthreads();                            // and all may write to it
        mbarrier_wait(shared_address(&full[s]), tile / 2 % 2);
        for (int i = threadIdx.x; i < ROWS * COLUMNS; i += THREADS) {
            const int r = i / COLUMNS, c = i % COLUMNS;
            const int place = r * COLUMNS + (c / 4 ^ r % 8) * 4 + c % 4;
            out[s][place] = fmaf(in[s][place], alpha, (float)(row0 + r));
        }
        fence_proxy_async();  // what this thread wrote is seen by the store
        __syncthreads();      // all have written out[s] and read in[s]
        if (threadIdx.x == 0) {
            tensor_store_2d(y_map, tile * COLUMNS, row0, shared_address(out[s]));
            bulk_commit();
            if (tile + 2 < tiles) load(tile + 2);
        }
    }
    if (threadIdx.x == 0) bulk_wait<0>();  // shared memory must live until it is read
}
