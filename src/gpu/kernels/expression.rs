//! Integer expressions as C writes them, for what a kernel's file says of its launch: `ceil_div(R, ROWS) * 2`.

use std::fmt;

/// An expression over integers and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Number(i64),
    Name(String),
    /// `sizeof(type)`
    SizeOf(String),
    Negative(Box<Expression>),
    Binary(&'static str, Box<Expression>, Box<Expression>),
    /// `condition ? yes : no`
    Choice(Box<Expression>, Box<Expression>, Box<Expression>),
    /// `ceil_div`, `min`, `max` of two
    Call(&'static str, Box<Expression>, Box<Expression>),
}

/// Operators from those that bind loosest, two characters before their first one.
const LEVELS: [&[&str]; 6] = [&["||"], &["&&"], &["==", "!="], &["<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];
const FUNCTIONS: [&str; 3] = ["ceil_div", "min", "max"];
/// Deeper expressions are refused, so that none exhausts the stack.
const DEEPEST: usize = 64;

/// Reads one expression from the begin of `text`; with it comes what follows.
pub fn parse(text: &str) -> Result<(Expression, &str), String> {
    let mut parser = Parser { rest: text.trim_start(), depth: 0 };
    let expression = parser.choice()?;
    Ok((expression, parser.rest))
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(format!("`{token}` expected before `{}`", shortened(self.rest))) }
    }

    fn choice(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("too many parentheses".to_owned());
        }
        let condition = self.binary(0)?;
        let expression = if self.take("?") {
            let yes = self.choice()?;
            self.expect(":")?;
            Expression::Choice(Box::new(condition), Box::new(yes), Box::new(self.choice()?))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn binary(&mut self, level: usize) -> Result<Expression, String> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(&operator) = operators.iter().find(|operator| self.take(operator)) {
            let right = self.binary(level + 1)?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, String> {
        if self.take("-") {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err("too many signs".to_owned());
            }
            let negative = Expression::Negative(Box::new(self.unary()?));
            self.depth -= 1;
            return Ok(negative);
        }
        if self.take("(") {
            let inside = self.choice()?;
            self.expect(")")?;
            return Ok(inside);
        }
        let word = self.word()?;
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.parse().map(Expression::Number).map_err(|_| format!("`{word}` is no integer"));
        }
        if !self.take("(") {
            return Ok(Expression::Name(word.to_owned()));
        }
        if word == "sizeof" {
            let name = self.word()?.to_owned();
            self.expect(")")?;
            return Ok(Expression::SizeOf(name));
        }
        let Some(&function) = FUNCTIONS.iter().find(|&&function| function == word) else {
            return Err(format!("unknown function `{word}`: there are {} and sizeof", FUNCTIONS.join(", ")));
        };
        let first = self.choice()?;
        self.expect(",")?;
        let second = self.choice()?;
        self.expect(")")?;
        Ok(Expression::Call(function, Box::new(first), Box::new(second)))
    }

    fn word(&mut self) -> Result<&'a str, String> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(format!("a number or a name expected before `{}`", shortened(self.rest)));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        Ok(word)
    }
}

impl Expression {
    /// Its value. `name` tells what a name stands for, `size` how many bytes a type has.
    pub fn value(
        &self,
        name: &mut dyn FnMut(&str) -> Result<i64, String>,
        size: &dyn Fn(&str) -> Option<i64>,
    ) -> Result<i64, String> {
        let overflow = || format!("`{self}` is too large");
        match self {
            Self::Number(number) => Ok(*number),
            Self::Name(of) => name(of),
            Self::SizeOf(of) => size(of).ok_or_else(|| format!("sizeof({of}): unknown type")),
            Self::Negative(of) => of.value(name, size)?.checked_neg().ok_or_else(overflow),
            Self::Choice(condition, yes, no) => {
                if condition.value(name, size)? != 0 {
                    yes.value(name, size)
                } else {
                    no.value(name, size)
                }
            }
            Self::Binary(operator, left, right) => {
                let (left, right) = (left.value(name, size)?, right.value(name, size)?);
                binary(operator, left, right).ok_or_else(|| format!("`{self}`: {left} {operator} {right} has no value"))
            }
            Self::Call(function, first, second) => {
                let (first, second) = (first.value(name, size)?, second.value(name, size)?);
                match *function {
                    "min" => Ok(first.min(second)),
                    "max" => Ok(first.max(second)),
                    _ if second > 0 => first.checked_add(second - 1).map(|sum| sum.div_euclid(second)).ok_or_else(overflow),
                    _ => Err(format!("`{self}`: division by {second}")),
                }
            }
        }
    }
}

fn binary(operator: &str, left: i64, right: i64) -> Option<i64> {
    match operator {
        "+" => left.checked_add(right),
        "-" => left.checked_sub(right),
        "*" => left.checked_mul(right),
        "/" => left.checked_div(right),
        "%" => left.checked_rem(right),
        "<" => Some(i64::from(left < right)),
        "<=" => Some(i64::from(left <= right)),
        ">" => Some(i64::from(left > right)),
        ">=" => Some(i64::from(left >= right)),
        "==" => Some(i64::from(left == right)),
        "!=" => Some(i64::from(left != right)),
        "&&" => Some(i64::from(left != 0 && right != 0)),
        _ => Some(i64::from(left != 0 || right != 0)),
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
            Self::SizeOf(name) => write!(f, "sizeof({name})"),
            Self::Negative(of) => write!(f, "-{of}"),
            Self::Binary(operator, left, right) => write!(f, "({left} {operator} {right})"),
            Self::Choice(condition, yes, no) => write!(f, "({condition} ? {yes} : {no})"),
            Self::Call(function, first, second) => write!(f, "{function}({first}, {second})"),
        }
    }
}

fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(20).map_or(text.len(), |(at, _)| at);
    &text[..end]
}
