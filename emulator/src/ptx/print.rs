//! The syntax tree as PTX again.
//!
//! A printed module parses back to an equal tree, the lines of its statements included: each statement is put on the line that
//! it came from, unless something put in before it has pushed it further down. So findings name the same lines before and after.

use super::ast::{Function, Initial, Instruction, Location, Module, Operand, Space, Statement, Type, Variable};
use std::fmt::{self, Display, Formatter, Write};

/// Items with commas between them.
fn list<T: Display>(f: &mut impl Write, items: &[T]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}

/// `name`, `name+8`, `name+-8`
fn with_offset(f: &mut impl Write, name: &str, offset: i64) -> fmt::Result {
    if offset == 0 { f.write_str(name) } else { write!(f, "{name}+{offset}") }
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Name(name) => f.write_str(name),
            Operand::Not(name) => write!(f, "!{name}"),
            Operand::Integer(value) => write!(f, "{}", *value as i64),
            Operand::Float32(bits) => write!(f, "0f{bits:08X}"),
            Operand::Float64(bits) => write!(f, "0d{bits:016X}"),
            Operand::Address { base: Some(base), offset } => {
                f.write_char('[')?;
                with_offset(f, base, *offset)?;
                f.write_char(']')
            }
            Operand::Address { base: None, offset } => write!(f, "[{offset}]"),
            Operand::AddressList(items) => {
                f.write_char('[')?;
                list(f, items)?;
                f.write_char(']')
            }
            Operand::Vector(items) => {
                f.write_char('{')?;
                list(f, items)?;
                f.write_char('}')
            }
            Operand::Pair(first, second) => write!(f, "{first}|{second}"),
            // Also an offset of zero is written, for `name` alone is another operand.
            Operand::Offset { name, offset } => write!(f, "{name}+{offset}"),
            Operand::Sink => f.write_char('_'),
        }
    }
}

/// `@!%p1 add.rn.f32 %f1, %f2, 0f3F800000;`
impl Display for Instruction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(guard) = &self.guard {
            write!(f, "@{}{} ", if guard.negated { "!" } else { "" }, guard.register)?;
        }
        f.write_str(&self.opcode)?;
        for modifier in &self.modifiers {
            write!(f, ".{modifier}")?;
        }
        for (index, operand) in self.operands.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { " " })?;
            match operand {
                Operand::Vector(items) if self.opcode == "call" => {
                    f.write_char('(')?;
                    list(f, items)?;
                    f.write_char(')')?;
                }
                operand => write!(f, "{operand}")?,
            }
        }
        f.write_char(';')
    }
}

impl Display for Space {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::Global => ".global",
            Space::Const => ".const",
            Space::Shared => ".shared",
            Space::Local => ".local",
            Space::Param => ".param",
            Space::Register => ".reg",
        })
    }
}

/// A declaration without what ends it: `.shared .align 16 .b8 tile[2048]`.
impl Display for Variable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_extern {
            f.write_str(".extern ")?;
        }
        write!(f, "{} ", self.space)?;
        if self.align != self.element.bytes() {
            write!(f, ".align {} ", self.align)?;
        }
        write!(f, ".{} {}", self.element.name(), self.name)?;
        match self.length {
            None => f.write_str("[]")?,
            Some(1) => {}
            Some(length) => write!(f, "[{length}]")?,
        }
        let (open, close) = if self.length == Some(1) { ("", "") } else { ("{", "}") };
        if !self.initial.is_empty() {
            write!(f, " = {open}")?;
            for (index, value) in self.initial.iter().enumerate() {
                f.write_str(if index > 0 { ", " } else { "" })?;
                initial(f, value, self.element)?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

fn initial(f: &mut Formatter<'_>, value: &Initial, element: Type) -> fmt::Result {
    match value {
        Initial::Integer(value) => write!(f, "{}", *value as i64),
        // The short form where it has the value, for the assembler wants it for an f32.
        Initial::Float(value) if element == Type::F32 && f64::from(*value as f32) == *value => {
            write!(f, "0f{:08X}", (*value as f32).to_bits())
        }
        Initial::Float(value) => write!(f, "0d{:016X}", value.to_bits()),
        Initial::Address { name, offset, generic: true } => with_offset(f, &format!("generic({name})"), *offset),
        Initial::Address { name, offset, generic: false } => with_offset(f, name, *offset),
    }
}

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let starts = self.variables.iter().map(|variable| variable.line).chain(self.functions.iter().map(first_line));
        let first = starts.min().unwrap_or(u32::MAX);
        let mut printer = Printer { out: f, line: 1, location: None, depth: 0 };
        write!(printer.out, ".version {}.{}", self.version.0, self.version.1)?;
        printer.start(first.min(2))?;
        write!(printer.out, ".target {}", self.target)?;
        printer.start(first.min(3))?;
        printer.out.write_str(".address_size 64")?;
        let mut variables = self.variables.iter().peekable();
        for function in &self.functions {
            while let Some(variable) = variables.next_if(|variable| variable.line <= first_line(function)) {
                printer.variable(variable)?;
            }
            printer.function(function, self.functions.iter().any(|other| other.name == function.name && other.body.is_some()))?;
        }
        for variable in variables {
            printer.variable(variable)?;
        }
        // What has no line comes last, where it moves nothing.
        for (alias, target) in &self.aliases {
            write!(printer.out, "\n.alias {alias}, {target};")?;
        }
        for (number, name) in &self.files {
            write!(printer.out, "\n.file {number} \"{name}\"")?;
        }
        printer.out.write_char('\n')
    }
}

/// The line on which a function's text has to begin.
fn first_line(function: &Function) -> u32 {
    function.returns.first().map_or(function.line, |variable| variable.line.min(function.line))
}

/// Writes statements at their lines.
struct Printer<'f, 'b> {
    out: &'f mut Formatter<'b>,
    /// The line being written, from 1.
    line: u32,
    /// The `.loc` in force.
    location: Option<Location>,
    depth: usize,
}

impl Printer<'_, '_> {
    /// Goes down to `line` and indents; stays on this line, after a space, if it is that line already or a later one.
    fn start(&mut self, line: u32) -> fmt::Result {
        if self.line >= line {
            return self.out.write_char(' ');
        }
        while self.line < line {
            self.out.write_char('\n')?;
            self.line += 1;
        }
        (0..self.depth).try_for_each(|_| self.out.write_str("    "))
    }

    fn variable(&mut self, variable: &Variable) -> fmt::Result {
        self.start(variable.line)?;
        write!(self.out, "{variable};")
    }

    fn parameters(&mut self, parameters: &[Variable]) -> fmt::Result {
        self.out.write_char('(')?;
        for (index, parameter) in parameters.iter().enumerate() {
            self.out.write_str(if index > 0 { "," } else { "" })?;
            self.start(parameter.line)?;
            write!(self.out, "{parameter}")?;
        }
        self.out.write_char(')')
    }

    /// A declaration is `.extern` unless the module itself has the definition.
    fn function(&mut self, function: &Function, is_defined: bool) -> fmt::Result {
        self.start(first_line(function))?;
        self.depth = 1;
        self.out.write_str(match (function.is_kernel, is_defined) {
            (true, _) => ".visible .entry",
            (false, true) => ".func",
            (false, false) => ".extern .func",
        })?;
        if !function.returns.is_empty() {
            self.parameters(&function.returns)?;
        }
        self.start(function.line)?;
        self.out.write_str(&function.name)?;
        self.parameters(&function.parameters)?;
        for (name, numbers) in &function.directives {
            write!(self.out, " .{name} ")?;
            list(self.out, numbers)?;
        }
        self.location = None;
        match &function.body {
            Some(body) => self.block(body)?,
            None => self.out.write_char(';')?,
        }
        self.depth = 0;
        Ok(())
    }

    fn block(&mut self, statements: &[Statement]) -> fmt::Result {
        self.out.write_str(" {")?;
        statements.iter().try_for_each(|statement| self.statement(statement))?;
        self.out.write_str(" }")
    }

    fn statement(&mut self, statement: &Statement) -> fmt::Result {
        match statement {
            Statement::Registers { ty, name, count, line } => {
                self.start(*line)?;
                write!(self.out, ".reg .{} {name}", ty.name())?;
                if let Some(count) = count {
                    write!(self.out, "<{count}>")?;
                }
                self.out.write_char(';')
            }
            Statement::Variable(variable) => self.variable(variable),
            Statement::Label { name, line } => {
                self.start(*line)?;
                write!(self.out, "{name}:")
            }
            Statement::BranchTargets { name, targets, line } => {
                self.start(*line)?;
                write!(self.out, "{name}: .branchtargets ")?;
                list(self.out, targets)?;
                self.out.write_char(';')
            }
            Statement::CallPrototype { name, text, line } => {
                self.start(*line)?;
                write!(self.out, "{name}: {text};")
            }
            Statement::Block(statements) => {
                self.depth += 1;
                self.block(statements)?;
                self.depth -= 1;
                Ok(())
            }
            Statement::Instruction(instruction) => self.instruction(instruction),
        }
    }

    /// A new `.loc` goes on the line before if that is free.
    fn instruction(&mut self, instruction: &Instruction) -> fmt::Result {
        if let Some(location) = instruction.location.filter(|location| self.location != Some(*location)) {
            self.start(instruction.line.saturating_sub(1))?;
            write!(self.out, ".loc {} {} {}", location.file, location.line, location.column)?;
            self.location = Some(location);
        }
        self.start(instruction.line)?;
        write!(self.out, "{instruction}")
    }
}
