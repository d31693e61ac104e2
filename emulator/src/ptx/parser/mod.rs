//! Tokens to syntax tree, by recursive descent with one token of lookahead and a bounded depth.
//!
//! `declaration` reads variables and their initial values, `function` what stands in kernels, `operand` what instructions take.

mod declaration;
mod function;
#[cfg(test)]
mod fuzz;
mod operand;
#[cfg(test)]
mod tests;

use super::ast::{Location, Module};
use super::lexer::{Kind, Token, error_at, tokens};
use crate::Result;

/// How deep braces, brackets and parentheses may nest.
const MAX_DEPTH: u32 = 64;

/// Reads one PTX module.
///
/// # Errors
/// [`Error::Syntax`](crate::Error::Syntax) with the place of the first thing that is not PTX, or that is PTX which the syntax
/// tree has no place for (textures, sub-byte types, 32-bit addresses, variables indexed with `[]`).
pub fn parse(text: &str) -> Result<Module> {
    let mut parser = Parser { text, tokens: tokens(text)?, position: 0, depth: 0, filled: 0, location: None };
    parser.module()
}

struct Parser<'a> {
    text: &'a str,
    /// Ends with `Kind::End`, which is never passed.
    tokens: Vec<Token<'a>>,
    position: usize,
    depth: u32,
    /// Zeros that short rows of initialisers have been given so far.
    filled: usize,
    /// The `.loc` in force.
    location: Option<Location>,
}

impl<'a> Parser<'a> {
    fn token(&self) -> Token<'a> {
        let end = Token { kind: Kind::End, line: 1, offset: self.text.len() };
        self.tokens.get(self.position).or(self.tokens.last()).copied().unwrap_or(end)
    }

    fn kind(&self) -> Kind<'a> {
        self.token().kind
    }

    fn line(&self) -> u32 {
        self.token().line
    }

    fn advance(&mut self) {
        if self.kind() != Kind::End {
            self.position += 1;
        }
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(error_at(self.text, self.token().offset, message.into()))
    }

    /// The error that says what should stand here.
    fn expected<T>(&self, what: &str) -> Result<T> {
        self.fail(match self.kind() {
            Kind::End => format!("expected {what}, found the end of the text"),
            kind => format!("expected {what}, found `{kind}`"),
        })
    }

    /// Steps over `sign` if it stands here.
    fn accept(&mut self, sign: char) -> bool {
        let found = self.kind() == Kind::Sign(sign);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, sign: char) -> Result<()> {
        if self.accept(sign) { Ok(()) } else { self.expected(&format!("`{sign}`")) }
    }

    /// Steps over `.name` if it stands here.
    fn accept_dot(&mut self, name: &str) -> bool {
        let found = self.kind() == Kind::Dot(name);
        if found {
            self.advance();
        }
        found
    }

    fn word(&mut self, what: &str) -> Result<&'a str> {
        let Kind::Word(word) = self.kind() else { return self.expected(what) };
        self.advance();
        Ok(word)
    }

    fn text(&mut self, what: &str) -> Result<&'a str> {
        let Kind::Text(text) = self.kind() else { return self.expected(what) };
        self.advance();
        Ok(text)
    }

    /// A plain number that fits 32 bits.
    fn number(&mut self, what: &str) -> Result<u32> {
        let Kind::Integer(value) = self.kind() else { return self.expected(what) };
        let Ok(value) = u32::try_from(value) else { return self.fail(format!("{value} does not fit 32 bits")) };
        self.advance();
        Ok(value)
    }

    /// Runs `read` one level deeper, or refuses to.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return self.fail(format!("nested more than {MAX_DEPTH} levels deep"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// `item, item, … close`; the opening sign has been passed.
    fn list(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if self.accept(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.accept(close) {
                return Ok(());
            }
            if !self.accept(',') {
                return self.expected(&format!("`,` or `{close}`"));
            }
        }
    }

    /// Steps over everything up to the sign that closes the bracket standing here.
    fn skip_brackets(&mut self, open: char, close: char) -> Result<()> {
        self.expect(open)?;
        let mut depth = 1_usize;
        while depth > 0 {
            match self.kind() {
                Kind::End => return self.expected(&format!("`{close}`")),
                Kind::Sign(sign) if sign == open => depth += 1,
                Kind::Sign(sign) if sign == close => depth -= 1,
                _ => {}
            }
            self.advance();
        }
        Ok(())
    }

    fn module(&mut self) -> Result<Module> {
        let mut module = Module { version: self.version()?, target: self.target()?, ..Module::default() };
        loop {
            match self.kind() {
                Kind::End => return Ok(module),
                Kind::Dot("address_size") => {
                    self.advance();
                    if self.kind() != Kind::Integer(64) {
                        return self.expected("64, the only size of addresses that is supported");
                    }
                    self.advance();
                }
                Kind::Dot("file") => {
                    self.advance();
                    let number = self.number("the number of a file")?;
                    let name = self.text("the name of a file in quotes")?;
                    module.files.insert(number, name.to_string());
                    // Time of modification and size may follow.
                    while self.accept(',') {
                        let Kind::Integer(_) = self.kind() else { return self.expected("a number") };
                        self.advance();
                    }
                }
                Kind::Dot("section") => {
                    self.advance();
                    let Kind::Dot(_) = self.kind() else { return self.expected("the name of a section") };
                    self.advance();
                    self.skip_brackets('{', '}')?;
                }
                Kind::Dot("alias") => {
                    self.advance();
                    let alias = self.word("a name")?;
                    self.expect(',')?;
                    let target = self.word("the name of a function")?;
                    self.expect(';')?;
                    module.aliases.insert(alias.to_string(), target.to_string());
                }
                Kind::Dot("pragma") => self.pragma()?,
                Kind::Dot("loc") => self.loc()?,
                Kind::Dot(_) => self.item(&mut module)?,
                _ => return self.expected("a directive"),
            }
        }
    }

    /// `.version 9.0`
    fn version(&mut self) -> Result<(u32, u32)> {
        if !self.accept_dot("version") {
            return self.expected("`.version`, with which every PTX text begins");
        }
        let Kind::Decimal(text) = self.kind() else { return self.expected("a version such as 9.0") };
        let parts = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let Some(version) = parts else { return self.expected("a version such as 9.0") };
        self.advance();
        Ok(version)
    }

    /// `.target sm_90a, debug`: the first name counts.
    fn target(&mut self) -> Result<String> {
        if !self.accept_dot("target") {
            return self.expected("`.target`");
        }
        let target = self.word("a target such as sm_90a")?;
        while self.accept(',') {
            self.word("an option of the target")?;
        }
        Ok(target.to_string())
    }

    /// A variable or function with what may stand in front of it.
    fn item(&mut self, module: &mut Module) -> Result<()> {
        let is_extern = self.linkage();
        match self.kind() {
            Kind::Dot("entry" | "func") => module.functions.push(self.function()?),
            _ => self.variables(is_extern, &mut |variable| module.variables.push(variable))?,
        }
        Ok(())
    }

    /// `.visible`, `.weak`, `.common`, `.extern` in front of a name; true if it was `.extern`.
    fn linkage(&mut self) -> bool {
        let mut is_extern = false;
        while let Kind::Dot(name @ ("visible" | "weak" | "common" | "extern")) = self.kind() {
            is_extern |= name == "extern";
            self.advance();
        }
        is_extern
    }

    /// `.attribute(.managed)` and the like say nothing that a run depends on.
    fn attributes(&mut self) -> Result<()> {
        while self.accept_dot("attribute") {
            self.skip_brackets('(', ')')?;
        }
        Ok(())
    }

    /// `.pragma "nounroll";` advises the assembler only.
    fn pragma(&mut self) -> Result<()> {
        self.advance();
        self.text("a string")?;
        while self.accept(',') {
            self.text("a string")?;
        }
        self.expect(';')
    }

    /// `.loc 1 12 3, function_name $L__info_string0, inlined_at 1 20 3`: the innermost place counts.
    fn loc(&mut self) -> Result<()> {
        self.advance();
        self.location = Some(self.place()?);
        while self.accept(',') {
            match self.word("`function_name` or `inlined_at`")? {
                "function_name" => {
                    if let Kind::Word(_) | Kind::Dot(_) = self.kind() {
                        self.advance();
                    } else {
                        return self.expected("a label");
                    }
                    if self.accept('+') {
                        self.number("a number")?;
                    }
                }
                "inlined_at" => drop(self.place()?),
                other => return self.fail(format!("expected `function_name` or `inlined_at` before this, found `{other}`")),
            }
        }
        Ok(())
    }

    fn place(&mut self) -> Result<Location> {
        Ok(Location { file: self.number("the number of a file")?, line: self.number("a line")?, column: self.number("a column")? })
    }
}
