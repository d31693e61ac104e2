//! The product of the matrix units: `D = A·B + C` on the registers of a warp.
//!
//! # Numerics
//!
//! Products and sums are f32. Element `(i, j)` of D is `((C[i][j] + A[i][0]·B[0][j]) + A[i][1]·B[1][j]) + …` in the order of k,
//! each product and sum rounded to nearest even (a product is exact unless it leaves f32's range). The manual leaves the hardware's
//! order of accumulation, rounding and treatment of subnormal inputs open (ISA 9.7.14.5.14), and Hopper's fp8 sums are known to
//! keep fewer bits than f32, so agreement with a GPU is to within a tolerance, not to the bit. The result here is the same on
//! every processor: no fused multiply-add, which only some have, and one NaN (all ones but the sign). An f16 D is rounded once, at
//! the end. tf32 operands lose their low 13 bits. Integer sums are exact, and wrap, or with `.satfinite` clamp, when C is added.

mod product;

use super::Register;
use super::element::{Accumulator, Multiplicand};
use super::fragment::Fragment;
use product::{multiply, unpack_b};

/// One form of `mma.sync`, `wmma.mma` or a warp's share of `wgmma.mma_async`: shape, types and modifiers, known to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mma {
    m: usize,
    n: usize,
    k: usize,
    a: Multiplicand,
    b: Multiplicand,
    c: Accumulator,
    d: Accumulator,
    saturate: bool,
    negate: bool,
}

/// What is added to the product.
#[derive(Debug, Clone, Copy)]
pub enum Addend<'a> {
    /// Nothing: `wgmma` with scale-d false.
    Zero,
    /// The fragment C.
    Registers(&'a [Register]),
    /// What D holds before the instruction (C's type is then D's).
    Destination,
}

/// B unpacked for [`Mma::multiply`], to be shared by the four warps of a warpgroup.
#[derive(Debug, Clone, PartialEq)]
pub struct Panels(Vec<[f32; 8]>);

/// Rows of 8 elements that B of `mma.sync` and `wmma` has at most: k × n / 8.
const MOST_ROWS: usize = 64;

impl Mma {
    /// `mma.sync.aligned.mMnNkK.row.col.D.A.B.C` (ISA 9.7.14.5.14), but for f64 ([`multiply_f64`]),
    /// single bits, sparse and block-scaled forms.
    ///
    /// # Errors
    /// A sentence that says which shape or type is not one of PTX's or not supported.
    pub fn sync(
        (m, n, k): (usize, usize, usize),
        a: Multiplicand,
        b: Multiplicand,
        c: Accumulator,
        d: Accumulator,
    ) -> Result<Self, String> {
        use Multiplicand::{Bf16, F16, Tf32};
        let mma = Self::typed(m, n, k, a, b, c, d)?;
        if (m, n, k, a) == (8, 8, 4, F16) {
            return Err("mma.m8n8k4 with f16 is Volta's: newer GPUs emulate it slowly, and its fragments are not supported".into());
        }
        let shapes: &[(usize, usize)] = match a {
            Tf32 => &[(16, 4), (16, 8)],
            F16 | Bf16 => &[(16, 8), (16, 16)],
            _ if a.bits() == 4 => &[(8, 32), (16, 32), (16, 64)],
            _ if a.is_integer() => &[(8, 16), (16, 16), (16, 32)],
            _ => &[(16, 16), (16, 32)],
        };
        if n != 8 || !shapes.contains(&(m, k)) {
            let valid: Vec<_> = shapes.iter().map(|(m, k)| format!("m{m}n8k{k}")).collect();
            return Err(format!("mma has no shape m{m}n{n}k{k} for {a:?}; it has {}", valid.join(", ")));
        }
        if c != d {
            return Err(format!("mma.m{m}n{n}k{k} needs C and D of one type, not {c:?} and {d:?}"));
        }
        Ok(mma)
    }

    /// `wmma.mma.sync.aligned` (ISA 9.7.14.4), but for f64 and sub-byte types. Fragments: see [`fragment`](super::fragment).
    ///
    /// # Errors
    /// A sentence that says which shape or type is not one of PTX's or not supported.
    pub fn wmma(
        (m, n, k): (usize, usize, usize),
        a: Multiplicand,
        b: Multiplicand,
        c: Accumulator,
        d: Accumulator,
    ) -> Result<Self, String> {
        let mma = Self::typed(m, n, k, a, b, c, d)?;
        let valid = match a {
            Multiplicand::Tf32 => (m, n, k) == (16, 16, 8),
            Multiplicand::F16 | Multiplicand::Bf16 | Multiplicand::S8 | Multiplicand::U8 => {
                matches!((m, n, k), (16, 16, 16) | (32, 8, 16) | (8, 32, 16))
            }
            _ => return Err(format!("wmma of {a:?} is not supported")),
        };
        if !valid || a != b {
            return Err(format!("wmma has no shape m{m}n{n}k{k} for {a:?} and {b:?}"));
        }
        Ok(mma)
    }

    /// One warp's 16 rows of `wgmma.mma_async.sync.aligned.m64nNkK.D.A.B` (ISA 9.7.15.5.2): warp `w` of the warpgroup computes
    /// rows `16·w` to `16·w + 15`. k follows from the type: 32 bytes of A's row.
    ///
    /// # Errors
    /// A sentence that says which shape or type is not one of PTX's or not supported.
    pub fn wgmma(n: usize, a: Multiplicand, b: Multiplicand, d: Accumulator) -> Result<Self, String> {
        let k = 8 * a.per_register();
        if a.bits() == 4 {
            return Err(format!("wgmma has no form for {a:?}"));
        }
        let mma = Self::typed(16, n, k, a, b, d, d)?;
        if !n.is_multiple_of(8) || !(8..=256).contains(&n) {
            return Err(format!("wgmma's n is a multiple of 8 from 8 to 256, not {n}"));
        }
        if a.is_integer() && n > 32 && !n.is_multiple_of(16) {
            return Err(format!("wgmma's n for integers above 32 is a multiple of 16, not {n}"));
        }
        Ok(mma)
    }

    /// Checks the types against each other.
    fn typed(
        m: usize,
        n: usize,
        k: usize,
        a: Multiplicand,
        b: Multiplicand,
        c: Accumulator,
        d: Accumulator,
    ) -> Result<Self, String> {
        use Multiplicand::{Bf16, Tf32};
        // The 8-bit floats mix freely, and so do signed and unsigned integers of one width.
        let mixes = a.bits() == 8 || a.bits() == 4;
        if a != b && !(mixes && a.bits() == b.bits() && a.is_integer() == b.is_integer()) {
            return Err(format!("A of {a:?} does not go with B of {b:?}"));
        }
        let fits = |x| match x {
            Accumulator::S32 => a.is_integer(),
            Accumulator::F32 => !a.is_integer(),
            Accumulator::F16 => !a.is_integer() && !matches!(a, Bf16 | Tf32),
        };
        if !fits(c) || !fits(d) {
            return Err(format!("A of {a:?} does not go with C of {c:?} and D of {d:?}"));
        }
        Ok(Self { m, n, k, a, b, c, d, saturate: false, negate: false })
    }

    /// With `.satfinite`: integer sums clamp to the range of s32 instead of wrapping.
    ///
    /// # Errors
    /// For types other than integers.
    pub fn saturating(self) -> Result<Self, String> {
        if !self.a.is_integer() {
            return Err(format!(".satfinite is for integers, not {:?}", self.a));
        }
        Ok(Self { saturate: true, ..self })
    }

    /// With `wgmma`'s imm-scale-a and imm-scale-b, each 1 or -1 (which negates the matrix).
    ///
    /// # Errors
    /// For other values, and for -1 with integers, which have no such operands.
    pub fn scaled(self, scale_a: i64, scale_b: i64) -> Result<Self, String> {
        if scale_a.abs() != 1 || scale_b.abs() != 1 {
            return Err(format!("imm-scale-a and imm-scale-b are 1 or -1, not {scale_a} and {scale_b}"));
        }
        if self.a.is_integer() && (scale_a, scale_b) != (1, 1) {
            return Err(format!("{:?} cannot be negated by imm-scale", self.a));
        }
        Ok(Self { negate: scale_a != scale_b, ..self })
    }

    /// (m, n, k); m of `wgmma` is one warp's 16.
    pub fn shape(&self) -> (usize, usize, usize) {
        (self.m, self.n, self.k)
    }

    /// Where the elements of A are.
    pub fn a(&self) -> Fragment {
        Fragment::a(self.m, self.k, self.a.per_register())
    }

    /// Where the elements of B are.
    pub fn b(&self) -> Fragment {
        Fragment::b(self.k, self.n, self.b.per_register())
    }

    /// Where the elements of C are.
    pub fn c(&self) -> Fragment {
        Fragment::accumulator(self.m, self.n, self.c.per_register())
    }

    /// Where the elements of D are.
    pub fn d(&self) -> Fragment {
        Fragment::accumulator(self.m, self.n, self.d.per_register())
    }

    /// `D = A·B + C`. Each slice begins with the registers of its fragment ([`a`](Self::a) and the others say how many); further
    /// registers, such as `wmma`'s copies, are neither read nor written.
    ///
    /// # Panics
    /// When a slice has fewer registers than its fragment: the decoder must have counted them.
    pub fn run(&self, a: &[Register], b: &[Register], c: Addend, d: &mut [Register]) {
        let rows = self.k * self.n / 8;
        let mut stack = [[0.0; 8]; MOST_ROWS];
        if let Some(panels) = stack.get_mut(..rows) {
            unpack_b(self, b, panels);
            multiply(self, a, panels, c, d);
        } else {
            self.multiply(a, &self.unpack(b), c, d);
        }
    }

    /// Unpacks the registers of B once for several [`multiply`](Self::multiply).
    ///
    /// # Panics
    /// When there are fewer registers than the fragment has.
    pub fn unpack(&self, b: &[Register]) -> Panels {
        let mut panels = vec![[0.0; 8]; self.k * self.n / 8];
        unpack_b(self, b, &mut panels);
        Panels(panels)
    }

    /// [`run`](Self::run) with B unpacked before.
    ///
    /// # Panics
    /// When a slice has fewer registers than its fragment, or `b` is of another shape.
    pub fn multiply(&self, a: &[Register], b: &Panels, c: Addend, d: &mut [Register]) {
        multiply(self, a, &b.0, c, d);
    }

    /// Which lanes of each register of D are undefined: [`undefined`] of this product's fragments.
    pub fn undefined(&self, a: &[u32], b: &[u32], c: &[u32], d: &mut [u32]) {
        undefined([self.a(), self.b(), self.c(), self.d()], a, b, c, d);
    }
}

/// Which lanes of each register of D are undefined, given the fragments of A, B, C and D and the undefined lanes of A, B and C
/// (empty if nothing is added), one mask of lanes per register: `D[i][j]` is undefined if anything in row i of A or column j of B
/// or `C[i][j]` is.
pub fn undefined(fragments: [Fragment; 4], a: &[u32], b: &[u32], c: &[u32], d: &mut [u32]) {
    let [fragment_a, fragment_b, fragment_c, fragment_d] = fragments;
    let (c, d) = (&c[..c.len().min(fragment_c.registers())], &mut d[..fragment_d.registers()]);
    let (a, b) = (&a[..fragment_a.registers()], &b[..fragment_b.registers()]);
    d.fill(0);
    if a.iter().chain(b).chain(c).all(|&mask| mask == 0) {
        return;
    }
    // Lanes 4g to 4g + 3 hold row (or column) g of each block of 8.
    let lines = |masks: &[u32], blocks: usize| {
        let mut undefined = [0u8; 32];
        for (register, &mask) in masks.iter().enumerate() {
            (0..8).filter(|g| mask >> (4 * g) & 15 != 0).for_each(|g| undefined[register % blocks] |= 1 << g);
        }
        undefined
    };
    let (rows, columns) = (lines(a, fragment_a.rows / 8), lines(b, fragment_b.columns / 8));
    for (register, mask) in d.iter_mut().enumerate() {
        for lane in 0..32 {
            for part in 0..fragment_d.per_register {
                let (row, column) = fragment_d.element(lane, register, part);
                let place = fragment_c.place(row, column);
                let added = c.get(place.register).is_some_and(|mask| mask >> place.lane & 1 != 0);
                let undefined = rows[row / 8] >> (row % 8) & 1 != 0 || columns[column / 8] >> (column % 8) & 1 != 0 || added;
                *mask |= u32::from(undefined) << lane;
            }
        }
    }
}

/// The fragments of A, B, C and D of `mma.sync.aligned.m{8,16}n8k{4,8,16}.row.col.f64.f64.f64.f64`: one element per 64-bit
/// register.
///
/// # Errors
/// For a shape that PTX does not have.
pub fn f64_fragments((m, n, k): (usize, usize, usize)) -> Result<[Fragment; 4], String> {
    if !matches!((m, n, k), (8, 8, 4) | (16, 8, 4 | 8 | 16)) {
        return Err(format!("mma has no shape m{m}n{n}k{k} for F64; it has m8n8k4, m16n8k4, m16n8k8, m16n8k16"));
    }
    Ok([Fragment::a(m, k, 1), Fragment::b(k, n, 1), Fragment::accumulator(m, n, 1), Fragment::accumulator(m, n, 1)])
}

/// The product of the [`f64_fragments`] with the default rounding: fused multiply-adds in the order of k (ISA 9.7.14.5.14: as
/// precise as `fma.f64`).
///
/// # Panics
/// When a slice has fewer registers than its fragment.
pub fn multiply_f64(fragments: [Fragment; 4], a: &[[f64; 32]], b: &[[f64; 32]], c: &[[f64; 32]], d: &mut [[f64; 32]]) {
    let [fragment_a, fragment_b, _, fragment_d] = fragments;
    for register in 0..fragment_d.registers() {
        d[register] = std::array::from_fn(|lane| {
            let (row, column) = fragment_d.element(lane, register, 0);
            (0..fragment_a.columns).fold(c[register][lane], |sum, k| {
                let (x, y) = (fragment_a.place(row, k), fragment_b.place(k, column));
                a[x.register][x.lane].mul_add(b[y.register][y.lane], sum)
            })
        });
    }
}

#[cfg(test)]
mod tests;
