//! Fragments: how the matrix units deal the elements of a matrix to the lanes and registers of a warp.
//!
//! All shapes of `mma.sync` with 8 columns (ISA 9.7.14.5, "Matrix Fragments for mma.m16n8k16" and its sisters), the registers
//! of `wgmma.mma_async` (ISA 9.7.15.5.1.1) and `mma.sync.m8n8k{4,16,32}` follow one rule. With `group = lane / 4`,
//! `thread = lane % 4` and `e` elements in a register (32 bits / element; 1 for f64, whose registers have 64 bits):
//!
//! * a register of A holds a block of 8 rows × `4e` columns, row-major over the lanes: row `group`, columns
//!   `thread·e .. thread·e + e`, the lowest column in the lowest bits. Blocks are counted down the rows first;
//! * a register of B is the same with rows and columns exchanged: 8 columns × `4e` rows, blocks counted along the columns first;
//! * a block of 8 × 8 elements of C and D takes row `group`, columns `2·thread` and `2·thread + 1`: two registers, or one if two
//!   f16 share a register. Blocks are counted down the rows first.
//!
//! The fragments of `wmma` are the implementation's own business (ISA 9.7.14.4.1): here they follow the same rule. Where `wmma`
//! gives a fragment more registers than its elements need (f16 A and B: always 8), register `r` is a copy of register
//! `r % registers()`, as on hardware, where such fragments hold each element more than once.
//!
//! `mma.sync.m8n8k4` with f16 (Volta's, which splits a warp into quads) follows another rule and is not supported.

/// Which matrix of `D = A·B + C` a fragment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    A,
    B,
    Accumulator,
}

/// The layout of one matrix over the registers of a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    role: Role,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) per_register: usize,
}

/// Where one element of a matrix lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Lane, 0 to 31.
    pub lane: usize,
    /// Register of the fragment, from 0.
    pub register: usize,
    /// Position in the register: 0 is the lowest bits.
    pub part: usize,
}

impl Fragment {
    /// A of `m` × `k` elements (`m` a multiple of 8, `k` of 4·`per_register`).
    pub const fn a(m: usize, k: usize, per_register: usize) -> Self {
        Self { role: Role::A, rows: m, columns: k, per_register }
    }

    /// B of `k` × `n` elements (`n` a multiple of 8, `k` of 4·`per_register`).
    pub const fn b(k: usize, n: usize, per_register: usize) -> Self {
        Self { role: Role::B, rows: k, columns: n, per_register }
    }

    /// C or D of `m` × `n` elements (multiples of 8), 1 per register or 2 (f16).
    pub const fn accumulator(m: usize, n: usize, per_register: usize) -> Self {
        Self { role: Role::Accumulator, rows: m, columns: n, per_register }
    }

    /// Rows and columns of the matrix.
    pub const fn shape(self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Registers that each lane gives to the matrix.
    pub const fn registers(self) -> usize {
        self.rows * self.columns / (32 * self.per_register)
    }

    /// The element (row, column) in `part` of `register` of `lane`.
    pub const fn element(self, lane: usize, register: usize, part: usize) -> (usize, usize) {
        let (group, thread, e) = (lane / 4, lane % 4, self.per_register);
        match self.role {
            Role::A => {
                let blocks = self.rows / 8;
                (group + 8 * (register % blocks), thread * e + part + 4 * e * (register / blocks))
            }
            Role::B => {
                let blocks = self.columns / 8;
                (thread * e + part + 4 * e * (register / blocks), group + 8 * (register % blocks))
            }
            Role::Accumulator => {
                let pair = register * e + part;
                let (block, blocks) = (pair / 2, self.rows / 8);
                (group + 8 * (block % blocks), 2 * thread + pair % 2 + 8 * (block / blocks))
            }
        }
    }

    /// Where element (`row`, `column`) lives: the inverse of [`element`](Self::element).
    pub const fn place(self, row: usize, column: usize) -> Place {
        let e = self.per_register;
        match self.role {
            Role::A | Role::B => {
                let (major, k, blocks) =
                    if matches!(self.role, Role::A) { (row, column, self.rows / 8) } else { (column, row, self.columns / 8) };
                let within = k % (4 * e);
                Place { lane: 4 * (major % 8) + within / e, register: major / 8 + blocks * (k / (4 * e)), part: within % e }
            }
            Role::Accumulator => {
                let pair = 2 * (row / 8 + self.rows / 8 * (column / 8)) + column % 2;
                Place { lane: 4 * (row % 8) + column % 8 / 2, register: pair / e, part: pair % e }
            }
        }
    }
}

#[cfg(test)]
mod tests;
