//! Operands and constant expressions.

use super::{Kind, Parser};
use crate::Result;
use crate::ptx::ast::Operand;

/// PTX's constant for the lanes of a warp.
pub(super) const WARP_SIZE_NAME: &str = "WARP_SZ";
const WARP_SIZE: i64 = 32;

/// Precedence of `+` and `-` among the operators.
const ADDITIVE: u32 = 5;

impl Parser<'_> {
    pub(super) fn operand(&mut self) -> Result<Operand> {
        match self.kind() {
            Kind::Sign('{') => {
                self.advance();
                self.vector('}')
            }
            Kind::Sign('[') => {
                self.advance();
                self.nested(Self::address)
            }
            Kind::Sign('!') if self.next_is_name() => {
                self.advance();
                Ok(Operand::Not(self.name()?))
            }
            Kind::Word(name) if name != WARP_SIZE_NAME => self.named(),
            _ => match self.float()? {
                Some(Kind::Float32(bits)) => Ok(Operand::Float32(bits)),
                Some(Kind::Float64(bits)) => Ok(Operand::Float64(bits)),
                _ => Ok(Operand::Integer(self.constant()? as u64)),
            },
        }
    }

    /// The list up to `close`, whose opening sign has been passed.
    pub(super) fn vector(&mut self, close: char) -> Result<Operand> {
        let mut items = Vec::new();
        self.nested(|parser| {
            parser.list(close, |parser| {
                items.push(parser.operand()?);
                Ok(())
            })
        })?;
        Ok(Operand::Vector(items))
    }

    fn next_is_name(&self) -> bool {
        self.tokens.get(self.position + 1).is_some_and(|next| matches!(next.kind, Kind::Word(word) if word != WARP_SIZE_NAME))
    }

    /// A name with the dots that belong to it: `%tid.x`.
    fn name(&mut self) -> Result<String> {
        let mut name = self.word("a name")?.to_string();
        while let Kind::Dot(part) = self.kind() {
            name.push('.');
            name.push_str(part);
            self.advance();
        }
        Ok(name)
    }

    /// What begins with a name: `%r1`, `_`, `%r1|%p1`, `table+8`.
    fn named(&mut self) -> Result<Operand> {
        let first = self.name_or_sink()?;
        match (self.kind(), first) {
            (Kind::Sign('|'), first) => {
                self.advance();
                let second = self.name_or_sink()?;
                Ok(Operand::Pair(Box::new(first), Box::new(second)))
            }
            (Kind::Sign('+' | '-'), Operand::Name(name)) => Ok(Operand::Offset { name, offset: self.offset()? }),
            (_, first) => Ok(first),
        }
    }

    fn name_or_sink(&mut self) -> Result<Operand> {
        let name = self.name()?;
        Ok(if name == "_" { Operand::Sink } else { Operand::Name(name) })
    }

    /// What stands between brackets, up to and with the closing one.
    fn address(&mut self) -> Result<Operand> {
        let mut items = Vec::new();
        let start = self.token();
        self.list(']', |parser| {
            items.push(parser.operand()?);
            Ok(())
        })?;
        Ok(match items.as_slice() {
            [Operand::Name(name)] => Operand::Address { base: Some(name.clone()), offset: 0 },
            [Operand::Offset { name, offset }] => Operand::Address { base: Some(name.clone()), offset: *offset },
            [Operand::Integer(value)] => Operand::Address { base: None, offset: *value as i64 },
            [Operand::Vector(_)] | [_, _, ..] => Operand::AddressList(items),
            _ => return Err(super::error_at(self.text, start.offset, "expected an address".into())),
        })
    }

    /// A float literal with its sign as `Kind::Float32` or `Kind::Float64`, if one stands here.
    pub(super) fn float(&mut self) -> Result<Option<Kind<'static>>> {
        let negative = self.kind() == Kind::Sign('-');
        let ahead = self.tokens.get(self.position + usize::from(negative)).map_or(Kind::End, |token| token.kind);
        let sign = u64::from(negative) << 63;
        let float = match ahead {
            Kind::Float32(bits) => Kind::Float32(bits ^ (sign >> 32) as u32),
            Kind::Float64(bits) => Kind::Float64(bits ^ sign),
            Kind::Decimal(text) => match text.parse::<f64>() {
                Ok(value) => Kind::Float64(value.to_bits() ^ sign),
                Err(_) => return self.expected("a float"),
            },
            _ => return Ok(None),
        };
        if negative {
            self.advance();
        }
        self.advance();
        Ok(Some(float))
    }

    /// `+8`, `-8`, `+-8`, `+8*4`, or nothing.
    pub(super) fn offset(&mut self) -> Result<i64> {
        self.operators(0, ADDITIVE)
    }

    /// An integer expression, in 64 bits that wrap; division and right shift are signed.
    pub(super) fn constant(&mut self) -> Result<i64> {
        let first = self.unary()?;
        self.operators(first, 1)
    }

    /// What follows `left` as long as its operators bind at least as tightly as `least`.
    fn operators(&mut self, mut left: i64, least: u32) -> Result<i64> {
        while let Some((precedence, apply)) = operator(self.kind()).filter(|found| found.0 >= least) {
            let sign = self.token();
            self.advance();
            let right = self.nested(|parser| {
                let first = parser.unary()?;
                parser.operators(first, precedence + 1)
            })?;
            let Some(value) = apply(left, right) else {
                return Err(super::error_at(self.text, sign.offset, "division by zero".into()));
            };
            left = value;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<i64> {
        match self.kind() {
            Kind::Integer(value) => {
                self.advance();
                Ok(value as i64)
            }
            Kind::Word(WARP_SIZE_NAME) => {
                self.advance();
                Ok(WARP_SIZE)
            }
            Kind::Sign(sign @ ('-' | '+' | '~' | '!')) => {
                self.advance();
                let value = self.nested(Self::unary)?;
                Ok(match sign {
                    '-' => value.wrapping_neg(),
                    '~' => !value,
                    '!' => i64::from(value == 0),
                    _ => value,
                })
            }
            Kind::Sign('(') => {
                self.advance();
                let value = self.nested(Self::constant)?;
                self.expect(')')?;
                Ok(value)
            }
            _ => self.expected("an operand"),
        }
    }
}

type Apply = fn(i64, i64) -> Option<i64>;

/// Precedence of a binary operator, 6 the tightest, and what it computes; `None` for a division by zero.
fn operator(kind: Kind) -> Option<(u32, Apply)> {
    /// Shifts by 64 or more empty the word.
    fn amount(by: i64) -> u32 {
        u32::try_from(by).unwrap_or(u32::MAX)
    }
    Some(match kind {
        Kind::Sign('*') => (6, |a, b| Some(a.wrapping_mul(b))),
        Kind::Sign('/') => (6, |a, b| (b != 0).then(|| a.wrapping_div(b))),
        Kind::Sign('%') => (6, |a, b| (b != 0).then(|| a.wrapping_rem(b))),
        Kind::Sign('+') => (ADDITIVE, |a, b| Some(a.wrapping_add(b))),
        Kind::Sign('-') => (ADDITIVE, |a, b| Some(a.wrapping_sub(b))),
        Kind::Shift('<') => (4, |a, b| Some(a.checked_shl(amount(b)).unwrap_or(0))),
        Kind::Shift('>') => (4, |a, b| Some(a >> amount(b).min(63))),
        Kind::Sign('&') => (3, |a, b| Some(a & b)),
        Kind::Sign('^') => (2, |a, b| Some(a ^ b)),
        Kind::Sign('|') => (1, |a, b| Some(a | b)),
        _ => return None,
    })
}
