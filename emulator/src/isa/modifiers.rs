//! The modifiers of an opcode, read from left to right in the order of the ISA's grammar.

use crate::numeric::exact::Rounding;
use crate::ptx::ast::Instruction;

/// What has not been read yet.
pub(super) struct Modifiers<'i> {
    rest: &'i [String],
}

impl<'i> Modifiers<'i> {
    pub(super) fn new(instruction: &'i Instruction) -> Self {
        Self { rest: &instruction.modifiers }
    }

    /// Steps over `name` if it comes next.
    pub(super) fn accept(&mut self, name: &str) -> bool {
        self.find(&[(name, ())]).is_some()
    }

    /// What a table says of the next modifier, which is stepped over then.
    pub(super) fn find<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        let (first, rest) = self.rest.split_first()?;
        let value = table.iter().find(|(name, _)| name == first)?.1;
        self.rest = rest;
        Some(value)
    }

    /// `.rn`, `.rz`, `.rm`, `.rp`
    pub(super) fn rounding(&mut self) -> Option<Rounding> {
        self.find(&[("rn", Rounding::Nearest), ("rz", Rounding::Zero), ("rm", Rounding::Down), ("rp", Rounding::Up)])
    }

    /// `.rni`, `.rzi`, `.rmi`, `.rpi`
    pub(super) fn integer_rounding(&mut self) -> Option<Rounding> {
        self.find(&[("rni", Rounding::Nearest), ("rzi", Rounding::Zero), ("rmi", Rounding::Down), ("rpi", Rounding::Up)])
    }

    /// The next modifier, stepped over; nothing matches `""`.
    pub(super) fn next(&mut self) -> &'i str {
        let Some((first, rest)) = self.rest.split_first() else { return "" };
        self.rest = rest;
        first
    }

    /// The only modifier that is left, as a rule the type; `""` if none or several are.
    pub(super) fn last(&self) -> &'i str {
        match self.rest {
            [last] => last,
            _ => "",
        }
    }
}

/// The Rust type of a PTX type; untyped bits count as unsigned.
macro_rules! rust_type {
    (b16) => {
        u16
    };
    (u16) => {
        u16
    };
    (s16) => {
        i16
    };
    (b32) => {
        u32
    };
    (u32) => {
        u32
    };
    (s32) => {
        i32
    };
    (b64) => {
        u64
    };
    (u64) => {
        u64
    };
    (s64) => {
        i64
    };
    (f32) => {
        f32
    };
    (f64) => {
        f64
    };
}

/// An expression with `$T` the Rust type of the PTX type called `$name`, which must be in the list; a further expression if it is
/// not, or the error that says so: `typed!(cx, i, T = "s32", [u32 s32] => f::<T>())`.
macro_rules! typed {
    ($T:ident = $name:expr, [$($ty:ident)+] => $body:expr, $otherwise:expr) => {{
        let name: &str = $name;
        match name {
            $(stringify!($ty) => {
                type $T = rust_type!($ty);
                $body
            })+
            _ => $otherwise,
        }
    }};
    ($cx:ident, $i:ident, $T:ident = $name:expr, [$($ty:ident)+] => $body:expr) => {
        typed!($T = $name, [$($ty)+] => $body, Err($cx.unsupported($i)))
    };
}

/// The unsigned type of the same width, for operations that give the same bits on both.
pub(super) fn unsigned(name: &str) -> &str {
    match name {
        "s16" => "u16",
        "s32" => "u32",
        "s64" => "u64",
        other => other,
    }
}
