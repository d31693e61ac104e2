//! How a kernel is launched, as its file says it in a comment above the prototype:
//!
//! ```text
//! // launch: grid (ceil_div(N, TILE), M), block THREADS, shared STAGES * STAGE_BYTES, registers 128
//! ```
//!
//! Names are the kernel's own integer parameters, macros that the compiler is given, and constants of the file and its headers
//! (`constexpr int NAME = …;`, `#define NAME …`). `registers` is no order to the compiler but a budget that a test holds it to.

use std::collections::HashMap;

use super::expression::{self, Expression};

/// Blocks, threads and shared memory as expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub grid: [Expression; 3],
    pub block: [Expression; 3],
    /// Bytes of dynamic shared memory.
    pub shared: Expression,
    /// The most registers that a thread may need.
    pub registers: Option<Expression>,
}

/// A plan's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extents {
    pub grid: [i64; 3],
    pub block: [i64; 3],
    pub shared: i64,
    pub registers: Option<i64>,
}

impl Plan {
    /// Reads what stands behind `launch:`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut grid, mut block, mut shared, mut registers) = (None, None, None, None);
        let mut rest = text.trim();
        loop {
            let (word, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()));
            let (items, remaining) = items(after.trim_start())?;
            let extents = |items: Vec<Expression>| -> Result<[Expression; 3], String> {
                let mut items = items.into_iter();
                let mut next = || items.next().unwrap_or(Expression::Number(1));
                Ok([next(), next(), next()])
            };
            let single = |mut items: Vec<Expression>| match items.len() {
                1 => Ok(items.remove(0)),
                _ => Err(format!("launch: `{word}` takes one number")),
            };
            match word {
                "grid" if grid.is_none() => grid = Some(extents(items)?),
                "block" if block.is_none() => block = Some(extents(items)?),
                "shared" if shared.is_none() => shared = Some(single(items)?),
                "registers" if registers.is_none() => registers = Some(single(items)?),
                "grid" | "block" | "shared" | "registers" => return Err(format!("launch: `{word}` twice")),
                _ => return Err(format!("launch: `{word}` where grid, block, shared or registers was expected")),
            }
            match remaining.strip_prefix(',') {
                Some(more) => rest = more.trim_start(),
                None if remaining.is_empty() => break,
                None => return Err(format!("launch: `,` expected before `{remaining}`")),
            }
        }
        let missing = |what: &str| format!("launch: `{what}` is missing");
        Ok(Self {
            grid: grid.ok_or_else(|| missing("grid"))?,
            block: block.ok_or_else(|| missing("block"))?,
            shared: shared.unwrap_or(Expression::Number(0)),
            registers,
        })
    }

    /// Its values: names are looked for among the parameters, then the constants.
    pub fn extents(&self, parameters: &dyn Fn(&str) -> Option<i64>, constants: &Constants) -> Result<Extents, String> {
        let value = |expression: &Expression| constants.value(expression, parameters);
        let three = |of: &[Expression; 3]| Ok::<_, String>([value(&of[0])?, value(&of[1])?, value(&of[2])?]);
        Ok(Extents {
            grid: three(&self.grid)?,
            block: three(&self.block)?,
            shared: value(&self.shared)?,
            registers: self.registers.as_ref().map(value).transpose()?,
        })
    }
}

/// One expression, or up to three in parentheses; and what follows.
fn items(text: &str) -> Result<(Vec<Expression>, &str), String> {
    // `(a, b)` is a list, `(a + b) * c` is not: the list is tried first.
    if let Some(mut rest) = text.strip_prefix('(') {
        let mut items = Vec::new();
        while let Ok((item, after)) = expression::parse(rest) {
            items.push(item);
            match after.strip_prefix(',') {
                Some(more) if items.len() < 3 => rest = more,
                _ => {
                    rest = after;
                    break;
                }
            }
        }
        if items.len() > 1 {
            let after = rest.strip_prefix(')').ok_or_else(|| "launch: `)` expected behind at most three extents".to_owned())?;
            return Ok((items, after.trim_start()));
        }
    }
    let (item, after) = expression::parse(text).map_err(|message| format!("launch: {message}"))?;
    Ok((vec![item], after))
}

/// What names stand for in one compiled file: macros of the command line, constants of the file and its headers, sizes of types.
#[derive(Debug, Clone, Default)]
pub struct Constants {
    definitions: HashMap<String, String>,
    element_bytes: i64,
}

/// Constants that refer to one another more deeply are taken to go in circles.
const DEEPEST: usize = 32;

impl Constants {
    /// Of these texts, where `defines` come before what the texts say; `element_bytes` is the size of the type that `element` names.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>, defines: &[(String, String)], element_bytes: i64) -> Self {
        let mut definitions: HashMap<String, String> = HashMap::new();
        for (name, value) in defines {
            definitions.insert(name.clone(), value.clone());
        }
        for line in texts.into_iter().flat_map(str::lines) {
            for (name, value) in declared(line) {
                definitions.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        Self { definitions, element_bytes }
    }

    /// The value of an expression in which parameters stand before constants.
    pub fn value(&self, expression: &Expression, parameters: &dyn Fn(&str) -> Option<i64>) -> Result<i64, String> {
        self.value_within(expression, parameters, 0)
    }

    fn value_within(&self, expression: &Expression, parameters: &dyn Fn(&str) -> Option<i64>, depth: usize) -> Result<i64, String> {
        let size = |name: &str| match name {
            "element" => Some(self.element_bytes),
            "bf16" | "half" | "u16" => Some(2),
            "float" | "int" | "u32" | "unsigned" => Some(4),
            "double" | "u64" => Some(8),
            "u8" | "char" => Some(1),
            "int4" | "float4" => Some(16),
            _ => None,
        };
        let mut name = |name: &str| {
            if let Some(value) = parameters(name) {
                return Ok(value);
            }
            let text = self
                .definitions
                .get(name)
                .ok_or_else(|| format!("`{name}` is neither an integer parameter of the kernel nor a constant of its file"))?;
            if depth > DEEPEST {
                return Err(format!("constant `{name}` refers to itself"));
            }
            let (definition, rest) = expression::parse(text).map_err(|message| format!("constant `{name}`: {message}"))?;
            if !rest.is_empty() {
                return Err(format!("constant `{name}`: `{text}` is no integer expression"));
            }
            // Constants are of the file: the kernel's parameters are not theirs to see.
            self.value_within(&definition, &|_| None, depth + 1)
        };
        expression.value(&mut name, &size)
    }
}

/// The constants that a line declares: `constexpr int A = 1, B = 2;` or `#define A 1`.
fn declared(line: &str) -> Vec<(&str, &str)> {
    let line = line.split("//").next().unwrap_or_default().trim();
    if let Some(rest) = line.strip_prefix("#define ") {
        return rest.trim().split_once(char::is_whitespace).map(|(name, value)| (name, value.trim())).into_iter().collect();
    }
    let line = line.strip_prefix("static ").unwrap_or(line);
    let Some(rest) = line.strip_prefix("constexpr int ").or_else(|| line.strip_prefix("constexpr u32 ")) else { return Vec::new() };
    let declarations = rest.split(';').next().unwrap_or_default();
    // Commas also stand in calls: only those outside of parentheses part declarations.
    let (mut depth, mut begin, mut parts) = (0i32, 0, Vec::new());
    for (at, c) in declarations.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&declarations[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&declarations[begin..]);
    parts.into_iter().filter_map(|part| part.split_once('=')).map(|(name, value)| (name.trim(), value.trim())).collect()
}
