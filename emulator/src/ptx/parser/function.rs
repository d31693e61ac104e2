//! Kernels, device functions and what stands in them.

use super::{Kind, Parser};
use crate::Result;
use crate::ptx::ast::{Function, Guard, Instruction, Operand, Statement};

/// Directives between the parameters and the body of a function, by how many numbers each may have at most.
const DIRECTIVES: [(&str, usize); 12] = [
    ("maxntid", 3),
    ("reqntid", 3),
    ("minnctapersm", 1),
    ("maxnctapersm", 1),
    ("maxnreg", 1),
    ("maxclusterrank", 1),
    ("reqnctapercluster", 3),
    ("explicitcluster", 0),
    ("blocksareclusters", 0),
    ("noreturn", 0),
    ("abi_preserve", 1),
    ("abi_preserve_control", 1),
];

impl Parser<'_> {
    /// `.entry name (…) .maxntid 128 { … }` or `.func (…) name (…) { … }` or `;` in place of the body.
    pub(super) fn function(&mut self) -> Result<Function> {
        let is_kernel = self.kind() == Kind::Dot("entry");
        self.advance();
        self.attributes()?;
        let mut directives = Vec::new();
        self.directives(&mut directives)?;
        let has_returns = !is_kernel && self.kind() == Kind::Sign('(');
        let returns = if has_returns { self.parameters()? } else { Vec::new() };
        let line = self.line();
        let name = self.word("the name of a function")?.to_string();
        let parameters = if self.kind() == Kind::Sign('(') { self.parameters()? } else { Vec::new() };
        self.directives(&mut directives)?;
        self.location = None;
        let body = match self.kind() {
            Kind::Sign('{') => Some(self.block()?),
            _ if self.accept(';') => None,
            _ => return self.expected("`{`, `;` or a directive of the function"),
        };
        Ok(Function { name, is_kernel, returns, parameters, directives, body, line })
    }

    fn directives(&mut self, directives: &mut Vec<(String, Vec<u32>)>) -> Result<()> {
        while let Kind::Dot(name) = self.kind() {
            if name == "pragma" {
                self.pragma()?;
                continue;
            }
            let Some(&(_, most)) = DIRECTIVES.iter().find(|row| row.0 == name) else {
                return self.expected("a directive such as `.maxntid`");
            };
            self.advance();
            let mut numbers = Vec::new();
            while numbers.len() < most {
                numbers.push(self.number("a number")?);
                if !self.accept(',') {
                    break;
                }
            }
            directives.push((name.to_string(), numbers));
        }
        Ok(())
    }

    /// `{ … }`
    fn block(&mut self) -> Result<Vec<Statement>> {
        self.expect('{')?;
        let mut statements = Vec::new();
        self.nested(|parser| {
            while !parser.accept('}') {
                parser.statement(&mut statements)?;
            }
            Ok(())
        })?;
        Ok(statements)
    }

    fn statement(&mut self, statements: &mut Vec<Statement>) -> Result<()> {
        match self.kind() {
            Kind::Sign('{') => statements.push(Statement::Block(self.block()?)),
            Kind::Sign('@') => statements.push(self.instruction()?),
            Kind::Dot("loc") => self.loc()?,
            Kind::Dot("pragma") => self.pragma()?,
            Kind::Dot("reg") => self.registers(statements)?,
            Kind::Dot("visible" | "weak" | "common" | "extern" | "global" | "const" | "shared" | "local" | "param") => {
                let is_extern = self.linkage();
                self.variables(is_extern, &mut |variable| statements.push(Statement::Variable(variable)))?;
            }
            Kind::Word(name) if self.tokens.get(self.position + 1).is_some_and(|next| next.kind == Kind::Sign(':')) => {
                let line = self.line();
                self.advance();
                self.advance();
                statements.push(self.labelled(name.to_string(), line)?);
            }
            Kind::Word(_) => statements.push(self.instruction()?),
            _ => return self.expected("an instruction, a declaration or `}`"),
        }
        Ok(())
    }

    /// What carries the label `name`; of instructions the label alone is read.
    fn labelled(&mut self, name: String, line: u32) -> Result<Statement> {
        match self.kind() {
            Kind::Dot("branchtargets") => {
                self.advance();
                let mut targets = Vec::new();
                self.list(';', |parser| {
                    targets.push(parser.word("a label")?.to_string());
                    Ok(())
                })?;
                Ok(Statement::BranchTargets { name, targets, line })
            }
            Kind::Dot("callprototype" | "calltargets") => {
                let mut text = String::new();
                while self.kind() != Kind::Sign(';') {
                    if let Kind::End | Kind::Sign('{' | '}') = self.kind() {
                        return self.expected("`;`");
                    }
                    if !text.is_empty() {
                        text.push(' ');
                    }
                    text.push_str(&self.kind().to_string());
                    self.advance();
                }
                self.advance();
                Ok(Statement::CallPrototype { name, text, line })
            }
            _ => Ok(Statement::Label { name, line }),
        }
    }

    /// `.reg .b32 %r<8>, a;`
    fn registers(&mut self, statements: &mut Vec<Statement>) -> Result<()> {
        self.advance();
        if let Kind::Dot("v2" | "v4" | "v8") = self.kind() {
            return self.fail("vectors of registers are not supported; declare each register");
        }
        let ty = self.ty()?;
        loop {
            let line = self.line();
            let name = self.word("the name of a register")?.to_string();
            let count = if self.accept('<') {
                let count = self.number("the number of registers")?;
                self.expect('>')?;
                Some(count)
            } else {
                None
            };
            statements.push(Statement::Registers { ty, name, count, line });
            if !self.accept(',') {
                return self.expect(';');
            }
        }
    }

    /// `@!%p1 add.rn.f32 %f1, %f2, 0f3F800000;`
    fn instruction(&mut self) -> Result<Statement> {
        let line = self.line();
        let guard = if self.accept('@') {
            let negated = self.accept('!');
            Some(Guard { negated, register: self.word("a predicate")?.to_string() })
        } else {
            None
        };
        let opcode = self.word("an instruction")?.to_string();
        let mut modifiers = Vec::new();
        while let Kind::Dot(modifier) = self.kind() {
            modifiers.push(modifier.to_string());
            self.advance();
        }
        let operands = self.operands(opcode == "call")?;
        Ok(Statement::Instruction(Instruction { guard, opcode, modifiers, operands, line, location: self.location }))
    }

    /// Up to and with the `;`. Only a call has lists in parentheses.
    fn operands(&mut self, is_call: bool) -> Result<Vec<Operand>> {
        let mut operands = Vec::new();
        if self.accept(';') {
            return Ok(operands);
        }
        loop {
            operands.push(if is_call && self.accept('(') { self.vector(')')? } else { self.operand()? });
            if self.accept(';') {
                return Ok(operands);
            }
            match self.kind() {
                Kind::Sign(',') => self.advance(),
                Kind::Sign('[') => return self.fail("a variable indexed with `[]` is not supported; write `[name+bytes]`"),
                _ => return self.expected("`,` or `;`"),
            }
        }
    }
}
