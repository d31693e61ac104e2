//! Variables, parameters and their initial values.

use super::{Kind, Parser};
use crate::Result;
use crate::ptx::ast::{Initial, Space, Type, Variable};

/// How many zeros may be filled into short rows of initialisers, in the whole module: a short text must not fill the memory.
const MAX_FILLED: usize = 1 << 20;

/// What is written in front of the names of a declaration.
struct Prefix {
    align: Option<u32>,
    element: Type,
    /// 1 without `.v2`, `.v4`, `.v8`.
    vector: u32,
}

impl Parser<'_> {
    /// `.global .align 16 .b8 a[2][8], b = {…};`
    pub(super) fn variables(&mut self, is_extern: bool, add: &mut dyn FnMut(Variable)) -> Result<()> {
        let Some(space) = self.space() else {
            return self.expected("`.entry`, `.func`, or `.global`, `.const`, `.shared`, `.local`, `.param` of a variable");
        };
        let prefix = self.prefix()?;
        loop {
            add(self.variable(space, is_extern, &prefix)?);
            if !self.accept(',') {
                return self.expect(';');
            }
        }
    }

    /// `(.param .u64 a, .param .align 8 .b8 b[16])`, the parentheses included.
    pub(super) fn parameters(&mut self) -> Result<Vec<Variable>> {
        let mut parameters = Vec::new();
        self.expect('(')?;
        self.list(')', |parser| {
            let space = match parser.kind() {
                Kind::Dot("reg") => {
                    parser.advance();
                    Space::Register
                }
                Kind::Dot("param") => {
                    parser.advance();
                    Space::Param
                }
                _ => return parser.expected("`.param`"),
            };
            let prefix = parser.prefix()?;
            parameters.push(parser.variable(space, false, &prefix)?);
            Ok(())
        })?;
        Ok(parameters)
    }

    fn space(&mut self) -> Option<Space> {
        let space = match self.kind() {
            Kind::Dot("global") => Space::Global,
            Kind::Dot("const") => Space::Const,
            Kind::Dot("shared") => Space::Shared,
            Kind::Dot("local") => Space::Local,
            Kind::Dot("param") => Space::Param,
            _ => return None,
        };
        self.advance();
        Some(space)
    }

    /// Alignment, vector and type, in whatever order; of a parameter also what its pointer points to, which is passed over.
    fn prefix(&mut self) -> Result<Prefix> {
        let (mut align, mut element, mut vector) = (None, None, 1);
        loop {
            match self.kind() {
                Kind::Dot("attribute") => self.attributes()?,
                Kind::Dot("align") => {
                    self.advance();
                    align = Some(self.alignment()?);
                }
                Kind::Dot("ptr") => {
                    self.advance();
                    while let Kind::Dot("global" | "const" | "shared" | "local" | "param" | "generic") = self.kind() {
                        self.advance();
                    }
                    if self.accept_dot("align") {
                        self.alignment()?;
                    }
                }
                Kind::Dot(width @ ("v2" | "v4" | "v8")) => {
                    vector = match width {
                        "v2" => 2,
                        "v4" => 4,
                        _ => 8,
                    };
                    self.advance();
                }
                Kind::Dot(_) => element = Some(self.ty()?),
                _ => break,
            }
        }
        match element {
            Some(element) => Ok(Prefix { align, element, vector }),
            None => self.expected("a type such as `.b32`"),
        }
    }

    fn alignment(&mut self) -> Result<u32> {
        match self.kind() {
            Kind::Integer(bytes) if bytes.is_power_of_two() => self.number("an alignment"),
            _ => self.expected("an alignment in bytes, a power of two"),
        }
    }

    /// One of the fundamental types.
    pub(super) fn ty(&mut self) -> Result<Type> {
        let Kind::Dot(name) = self.kind() else { return self.expected("a type such as `.b32`") };
        let Some(ty) = Type::from_name(name) else {
            return match name {
                "b1" | "b2" | "b4" | "u2" | "u4" | "s2" | "s4" => self.fail(format!("no variable has the sub-byte type `.{name}`")),
                "texref" | "samplerref" | "surfref" => self.fail(format!("textures and surfaces (`.{name}`) are not supported")),
                _ => self.expected("a type such as `.b32`"),
            };
        };
        self.advance();
        Ok(ty)
    }

    fn variable(&mut self, space: Space, is_extern: bool, prefix: &Prefix) -> Result<Variable> {
        let line = self.line();
        let name = self.word("a name")?.to_string();
        let mut extents = Vec::new();
        while self.kind() == Kind::Sign('[') {
            self.advance();
            extents.push(if self.kind() == Kind::Sign(']') { None } else { Some(self.extent()?) });
            self.expect(']')?;
        }
        if self.kind() == Kind::Sign('<') {
            return self.fail("only registers are declared with a count in `<>`");
        }
        if prefix.vector > 1 {
            extents.push(Some(prefix.vector.into()));
        }
        let before = self.token();
        let initial = if self.accept('=') { self.initial(&extents)? } else { Vec::new() };
        let refuse = |message: &str| Err(super::error_at(self.text, before.offset, format!("`{name}` {message}")));
        let known = extents.iter().flatten().try_fold(1_u64, |product, &extent| product.checked_mul(extent));
        let Some(known) = known.filter(|&length| length.checked_mul(prefix.element.bytes().into()).is_some()) else {
            return refuse("is larger than 64 bits can count");
        };
        let written = initial.len() as u64;
        let open = extents.iter().filter(|extent| extent.is_none()).count();
        let length = match (open, written) {
            (0, _) if written > known => return refuse(&format!("has {known} elements, but {written} initial values")),
            (0, _) => Some(known),
            (1, 0) if extents.first() == Some(&None) => None,
            (_, 0) => return refuse("may leave only its first extent open"),
            _ => match written.checked_next_multiple_of(known) {
                Some(length) => Some(length),
                None => return refuse("has rows without elements"),
            },
        };
        let natural = prefix.element.bytes().saturating_mul(prefix.vector);
        Ok(Variable {
            name,
            space,
            is_extern,
            align: prefix.align.unwrap_or(natural),
            element: prefix.element,
            length,
            initial,
            line,
        })
    }

    fn extent(&mut self) -> Result<u64> {
        let value = self.constant()?;
        match u64::try_from(value) {
            Ok(extent) => Ok(extent),
            Err(_) => self.fail(format!("an array cannot have {value} elements")),
        }
    }

    /// What follows `=`. Short rows of nested lists are filled with zeros, so that the values come out flat.
    fn initial(&mut self, extents: &[Option<u64>]) -> Result<Vec<Initial>> {
        let mut values = Vec::new();
        if self.accept('{') {
            self.initial_list(extents, &mut values)?;
        } else {
            values.push(self.initial_value()?);
        }
        Ok(values)
    }

    fn initial_list(&mut self, extents: &[Option<u64>], values: &mut Vec<Initial>) -> Result<()> {
        self.nested(|parser| {
            parser.list('}', |parser| {
                if !parser.accept('{') {
                    values.push(parser.initial_value()?);
                    return Ok(());
                }
                let rows = extents.get(1..).unwrap_or(&[]);
                if rows.is_empty() {
                    return parser.fail("more nested lists than the variable has extents");
                }
                let start = values.len();
                parser.initial_list(rows, values)?;
                // With an extent left open, a row is as long as it is written.
                let full = rows.iter().try_fold(1_u64, |product, extent| product.checked_mul((*extent)?));
                let Some(full) = full else { return Ok(()) };
                let written = (values.len() - start) as u64;
                if written > full {
                    return parser.fail(format!("this row has {full} elements, but {written} initial values"));
                }
                let missing = usize::try_from(full - written).unwrap_or(usize::MAX);
                if missing > MAX_FILLED - parser.filled {
                    return parser
                        .fail(format!("{missing} zeros are too many to be filled in; write the values without inner braces"));
                }
                parser.filled += missing;
                values.resize(values.len() + missing, Initial::Integer(0));
                Ok(())
            })
        })
    }

    fn initial_value(&mut self) -> Result<Initial> {
        if let Some(bits) = self.float()? {
            return Ok(Initial::Float(match bits {
                Kind::Float32(bits) => widen(bits),
                Kind::Float64(bits) => f64::from_bits(bits),
                _ => return self.expected("a float"),
            }));
        }
        let Kind::Word(name) = self.kind() else {
            let value = self.constant()?;
            if self.kind() == Kind::Sign('(') {
                return self.fail("the mask operator, as in `0xFF(name)`, is not supported");
            }
            return Ok(Initial::Integer(value as u64));
        };
        if name == super::operand::WARP_SIZE_NAME {
            return Ok(Initial::Integer(self.constant()? as u64));
        }
        self.advance();
        let called = self.kind() == Kind::Sign('(');
        if called && name == "mask" {
            return self.fail("the mask operator is not supported");
        }
        let generic = called && name == "generic";
        let name = if generic {
            self.advance();
            let name = self.word("the name of a variable")?;
            self.expect(')')?;
            name
        } else {
            name
        };
        let offset = self.offset()?;
        Ok(Initial::Address { name: name.to_string(), offset, generic })
    }
}

/// The same value with more bits; of a NaN also its payload, which a conversion would be free to change.
fn widen(bits: u32) -> f64 {
    let value = f32::from_bits(bits);
    if value.is_nan() {
        let (sign, payload) = (u64::from(bits >> 31) << 63, u64::from(bits & 0x7F_FFFF) << 29);
        return f64::from_bits(sign | 0x7FF0_0000_0000_0000 | payload);
    }
    value.into()
}
