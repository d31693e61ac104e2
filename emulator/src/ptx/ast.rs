//! The syntax tree of a PTX module: names are still text, opcodes are split at their dots, and nothing is resolved.

use std::collections::BTreeMap;

/// One PTX file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Module {
    /// `.version` major and minor.
    pub version: (u32, u32),
    /// `.target`, first name: `sm_90a`.
    pub target: String,
    /// `.alias name, target;`: further names of functions.
    pub aliases: BTreeMap<String, String>,
    /// Source files by the number that `.loc` uses.
    pub files: BTreeMap<u32, String>,
    /// Module-scope variables: `.global`, `.const`, `.shared`, also those declared `.extern`.
    pub variables: Vec<Variable>,
    /// Kernels and device functions, also those only declared (`body` is then `None`).
    pub functions: Vec<Function>,
}

/// State spaces in which a variable can live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// `.global`
    Global,
    /// `.const`
    Const,
    /// `.shared`
    Shared,
    /// `.local`
    Local,
    /// `.param`
    Param,
    /// `.reg` as parameter or return value of a device function: a register of that name inside it.
    Register,
}

/// The fundamental types, by the names that PTX gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are PTX's own
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    BF16,
    BF16x2,
    F32,
    F64,
}

impl Type {
    /// All of them with their names and bytes; a predicate counts as one byte.
    const TABLE: [(Type, &'static str, u32); 20] = [
        (Type::Pred, "pred", 1),
        (Type::B8, "b8", 1),
        (Type::B16, "b16", 2),
        (Type::B32, "b32", 4),
        (Type::B64, "b64", 8),
        (Type::B128, "b128", 16),
        (Type::U8, "u8", 1),
        (Type::U16, "u16", 2),
        (Type::U32, "u32", 4),
        (Type::U64, "u64", 8),
        (Type::S8, "s8", 1),
        (Type::S16, "s16", 2),
        (Type::S32, "s32", 4),
        (Type::S64, "s64", 8),
        (Type::F16, "f16", 2),
        (Type::F16x2, "f16x2", 4),
        (Type::BF16, "bf16", 2),
        (Type::BF16x2, "bf16x2", 4),
        (Type::F32, "f32", 4),
        (Type::F64, "f64", 8),
    ];

    /// The type that PTX calls so (`"f32"`, no dot); `None` for what is not in the list.
    pub fn from_name(name: &str) -> Option<Type> {
        Self::TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// PTX's name, without the dot.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes of one value; 1 for a predicate.
    pub fn bytes(self) -> u32 {
        self.row().2
    }

    /// The table has the order of the variants.
    fn row(self) -> &'static (Type, &'static str, u32) {
        &Self::TABLE[self as usize]
    }
}

/// A variable or parameter: `.shared .align 16 .b8 tile[2048];`.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// As written, `$` and `%` included.
    pub name: String,
    /// Where it lives.
    pub space: Space,
    /// Declared `.extern`: dynamic shared memory, or defined elsewhere.
    pub is_extern: bool,
    /// Bytes; the element's own alignment unless `.align` or a vector type says more.
    pub align: u32,
    /// Of one element; a vector type `.v4 .f32` counts as four elements of `F32`.
    pub element: Type,
    /// Number of elements (1 for a scalar; the product of all extents). `None` for an extent left open: `dyn[]`.
    pub length: Option<u64>,
    /// Written initial values, flattened in order; empty without an initialiser. Missing trailing elements are zero.
    pub initial: Vec<Initial>,
    /// Line in the PTX text, from 1.
    pub line: u32,
}

/// One initial value of a variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Initial {
    /// An integer, two's complement if negative.
    Integer(u64),
    /// The bits of a float literal written for the element type: `0f…`, `0d…` or decimal.
    Float(f64),
    /// The address of another variable or function plus bytes, as `generic(name)+8` or `name+8`; `generic` tells which.
    Address {
        /// The variable or function.
        name: String,
        /// Bytes added.
        offset: i64,
        /// Written with `generic(…)`: a generic address, not one of the variable's own space.
        generic: bool,
    },
}

/// A kernel (`.entry`) or device function (`.func`).
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// As written.
    pub name: String,
    /// `.entry`.
    pub is_kernel: bool,
    /// Return parameters of a `.func` (`.param` variables, or registers in old code).
    pub returns: Vec<Variable>,
    /// Parameters in order.
    pub parameters: Vec<Variable>,
    /// Performance and launch directives with their numbers, as written without the dot: `("maxntid", [128, 1, 1])`,
    /// `("reqnctapercluster", [2])`, `("explicitcluster", [])`.
    pub directives: Vec<(String, Vec<u32>)>,
    /// `None` for a declaration.
    pub body: Option<Vec<Statement>>,
    /// Line of the name in the PTX text, from 1.
    pub line: u32,
}

/// What stands in a body, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// `.reg .b32 %r<8>;` declares `%r0` … `%r7`; without a count, the one name.
    Registers {
        /// Type of each.
        ty: Type,
        /// Name, or prefix when `count` is given.
        name: String,
        /// Number of registers, `None` for a single one.
        count: Option<u32>,
        /// Line in the PTX text, from 1.
        line: u32,
    },
    /// `.shared`, `.local`, `.param`, `.global` or `.const` declared inside the body.
    Variable(Variable),
    /// `name:`
    Label {
        /// As written.
        name: String,
        /// Line in the PTX text, from 1.
        line: u32,
    },
    /// `name: .branchtargets a, b, c;`, the table of a `brx.idx`.
    BranchTargets {
        /// The label that the table carries.
        name: String,
        /// Labels in order.
        targets: Vec<String>,
        /// Line in the PTX text, from 1.
        line: u32,
    },
    /// `name: .callprototype (…) _ (…);` or `name: .calltargets f, g;` of an indirect call, kept as text.
    CallPrototype {
        /// The label that the prototype carries.
        name: String,
        /// What follows the label, directive included, one space between tokens.
        text: String,
        /// Line in the PTX text, from 1.
        line: u32,
    },
    /// `{ … }`: names and labels declared inside are visible only there.
    Block(Vec<Statement>),
    /// One instruction.
    Instruction(Instruction),
}

/// One instruction: `@!%p1 add.rn.f32 %f1, %f2, 0f3F800000;`.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// The predicate in front of it.
    pub guard: Option<Guard>,
    /// What stands before the first dot: `add`.
    pub opcode: String,
    /// What stands between the dots, without them, colons kept: `["rn", "f32"]`, `["shared::cta", "b64"]`.
    pub modifiers: Vec<String>,
    /// In order. `call` has: return list (`Vector`, left out when absent), name, argument list (`Vector`, left out when absent),
    /// then a prototype or table name if given.
    pub operands: Vec<Operand>,
    /// Line in the PTX text, from 1.
    pub line: u32,
    /// The `.loc` in force.
    pub location: Option<Location>,
}

/// `@p` or `@!p`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Name of the predicate register.
    pub register: String,
    /// Written with `!`.
    pub negated: bool,
}

/// A place in the source that the module was compiled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Key of `Module::files`.
    pub file: u32,
    /// From 1.
    pub line: u32,
    /// From 1; 0 if not told.
    pub column: u32,
}

/// One operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, variable, label, function or special register (`%tid.x`, the dot and what follows included).
    Name(String),
    /// `!%p`
    Not(String),
    /// An integer literal; negative ones in two's complement of 64 bits.
    Integer(u64),
    /// `0fXXXXXXXX`: the bits of an f32.
    Float32(u32),
    /// `0dXXXXXXXXXXXXXXXX` or a decimal float: the bits of an f64.
    Float64(u64),
    /// `[base+offset]`; the base is a register, a variable or an absolute number.
    Address {
        /// Register or variable, `None` for an absolute address.
        base: Option<String>,
        /// Bytes.
        offset: i64,
    },
    /// `[tensorMap, {c0, c1}]` or `[tensorMap, {c0, c1}, {o0}]`: everything between the brackets in order, braces as `Vector`.
    AddressList(Vec<Operand>),
    /// `{a, b, c, d}`, and the parenthesised lists of `call`.
    Vector(Vec<Operand>),
    /// `%r1|%p2`
    Pair(Box<Operand>, Box<Operand>),
    /// `name+8`, as in `mov.u64 %rd, table+8;`
    Offset {
        /// The variable.
        name: String,
        /// Bytes.
        offset: i64,
    },
    /// `_`
    Sink,
}
