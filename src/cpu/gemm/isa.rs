//! The safe way into the kernels, the same for every instruction set: bounds are checked, then the kernels run, compiled with the set's
//! instructions switched on.

/// Defines the proof type of an instruction set and its [`Isa`](super::kernel::Isa): its target features, how the processor is asked
/// for them, and the rows `1 2 … MR` that a register tile may have. A tile has up to two vectors of columns.
macro_rules! isa {
    ($(#[$doc:meta])* $name:ident, $features:literal, $detected:expr, rows: $($rows:literal)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name(());

        impl $name {
            /// The proof, if the processor has these instructions.
            pub fn detect() -> Option<Self> {
                $detected.then_some(Self(()))
            }
        }

        /// Tile functions by rows − 1, vectors − 1 and whether the last vector is whole.
        static TILES: [[[TileFn; 2]; 2]; $name::MR] = [
            $([[run_tile::<$rows, 1, false>, run_tile::<$rows, 1, true>], [run_tile::<$rows, 2, false>, run_tile::<$rows, 2, true>]]),*
        ];

        impl Isa for $name {
            const MR: usize = [$($rows),*].len();
            const NR: usize = 2 * Self::LANES;

            #[inline]
            fn tile(self, tile: Tile) {
                let (rows, cols) = (tile.rows, tile.cols);
                let raw = tile.check(Self::MR, Self::LANES);
                // SAFETY: `self` proves the instruction set, and the bounds were just checked.
                unsafe { TILES[rows - 1][(cols > Self::LANES) as usize][cols.is_multiple_of(Self::LANES) as usize](&raw) }
            }

            fn dots<B: Stored>(self, mut dots: Dots<B>) {
                dots.check();
                // SAFETY: `self` proves the instruction set, and the bounds were just checked.
                unsafe { run_dots(&mut dots) }
            }

            fn pack(self, mut pack: Pack) {
                pack.check(Self::LANES);
                // SAFETY: `self` proves the instruction set, and the bounds were just checked.
                unsafe { run_pack(&mut pack) }
            }

            fn transpose<B: Stored>(self, rows: usize, cols: usize, src: &[B], src_stride: usize, dst: &mut [f32], dst_stride: usize) {
                // SAFETY: `self` proves the instruction set.
                unsafe { run_transpose(rows, cols, src, src_stride, dst, dst_stride) }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn run_tile<const ROWS: usize, const VECS: usize, const FULL: bool>(t: &RawTile) {
            // SAFETY: the caller's.
            unsafe { kernel::tile::<$name, ROWS, VECS, FULL>(t) }
        }

        #[target_feature(enable = $features)]
        unsafe fn run_dots<B: Stored>(d: &mut Dots<B>) {
            // SAFETY: the caller's.
            unsafe {
                match d.rows {
                    1 => kernel::dots::<$name, B, 1>(d),
                    2 => kernel::dots::<$name, B, 2>(d),
                    3 => kernel::dots::<$name, B, 3>(d),
                    _ => kernel::dots::<$name, B, 4>(d),
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn run_pack(t: &mut Pack) {
            // SAFETY: the caller's.
            unsafe { pack::pack::<$name>(t) }
        }

        #[target_feature(enable = $features)]
        unsafe fn run_transpose<B: Stored>(rows: usize, cols: usize, src: &[B], src_stride: usize, dst: &mut [f32], dst_stride: usize) {
            // SAFETY: the caller's.
            unsafe { pack::transpose::<$name, B>(rows, cols, src, src_stride, dst, dst_stride) }
        }
    };
}
pub(super) use isa;
