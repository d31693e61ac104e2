//! Reads the prototypes of the kernels in a `.cu` file: every `extern "C" __global__ void name(parameters)`.

/// A kernel as its file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prototype {
    pub name: String,
    pub parameters: Vec<Parameter>,
    /// Line of the name, from 1.
    pub line: usize,
    /// What stands behind `launch:` in the comment above; see [`plan`](super::plan).
    pub launch: Option<String>,
}

/// A parameter: `const bf16* x, // [R, C]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub kind: Kind,
    /// As written, without the name: `const bf16*`.
    pub declared: String,
    /// The comment behind it, which gives the shape.
    pub comment: Option<String>,
}

/// What a parameter takes, by Rust's name for the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pointer { element: &'static str, constant: bool },
    Value(&'static str),
}

/// What is wrong, and in which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub line: usize,
    pub message: String,
}

fn fail<T>(line: usize, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { line, message: message.into() })
}

/// CUDA's names of each type that can be passed. `long` is missing: it has 4 or 8 bytes.
const TYPES: [(&str, &[&str]); 14] = [
    (ELEMENT, &["element"]),
    ("f32", &["float"]),
    ("f64", &["double"]),
    ("half::f16", &["half", "__half"]),
    ("half::bf16", &["bf16", "__nv_bfloat16"]),
    ("i8", &["char", "signed char", "int8_t"]),
    ("u8", &["unsigned char", "uint8_t"]),
    ("i16", &["short", "short int", "int16_t"]),
    ("u16", &["unsigned short", "unsigned short int", "uint16_t"]),
    ("i32", &["int", "signed", "signed int", "int32_t"]),
    ("u32", &["unsigned", "unsigned int", "uint32_t"]),
    ("i64", &["long long", "long long int", "int64_t"]),
    ("u64", &["unsigned long long", "unsigned long long int", "uint64_t", "size_t"]),
    (TENSOR_MAP, &["TensorMap"]),
];
const TENSOR_MAP: &str = "TensorMap";
/// The macro that stands for the type of activations and weights.
pub const ELEMENT: &str = "element";

/// All kernels of a file, in order. A kernel that stands there twice, in the branches of an `#if`, counts once if the prototypes agree.
pub fn parse(text: &str) -> Result<Vec<Prototype>, Failure> {
    let (tokens, comments) = tokenize(text)?;
    let mut kernels: Vec<Prototype> = Vec::new();
    for at in (0..tokens.len()).filter(|&at| tokens[at].text == "__global__") {
        let extern_c = at >= 2 && tokens[at - 2].text == "extern" && tokens[at - 1].text == "\"C\"";
        if !extern_c {
            return fail(
                tokens[at].line,
                "a kernel must be declared `extern \"C\" __global__ void name(…)`, so that it is found by its name",
            );
        }
        let mut kernel = prototype(&tokens[at + 1..], tokens[at].line, &comments)?;
        kernel.launch = launch_comment(tokens[at - 2].line, &comments);
        match kernels.iter().find(|other| other.name == kernel.name) {
            None => kernels.push(kernel),
            Some(other)
                if other.parameters.iter().map(|p| (&p.name, p.kind)).eq(kernel.parameters.iter().map(|p| (&p.name, p.kind))) => {}
            Some(other) => {
                return fail(kernel.line, format!("kernel `{}` has other parameters than in line {}", kernel.name, other.line));
            }
        }
    }
    Ok(kernels)
}

/// From behind `__global__` to the closing parenthesis.
fn prototype(tokens: &[Token], line: usize, comments: &[Comment]) -> Result<Prototype, Failure> {
    let mut at = 0;
    let mut returns_void = false;
    // `void` and attributes with their arguments, in any order.
    loop {
        let Some(token) = tokens.get(at) else { return fail(line, "the kernel's name and parameters are missing") };
        let opens = tokens.get(at + 1).is_some_and(|next| next.text == "(");
        match token.text.as_str() {
            "void" => returns_void = true,
            "__launch_bounds__" | "__cluster_dims__" | "__block_size__" if opens => at = closing(tokens, at + 1)?,
            _ if token.is_word() && opens => break,
            other => return fail(token.line, format!("`{other}` where the kernel's name was expected")),
        }
        at += 1;
    }
    let name = &tokens[at];
    if !returns_void {
        return fail(name.line, format!("kernel `{}` must return void", name.text));
    }
    let end = closing(tokens, at + 1)?;
    let inside = &tokens[at + 2..end];
    let mut parameters: Vec<Parameter> = Vec::new();
    let none = inside.is_empty() || (inside.len() == 1 && inside[0].text == "void");
    if !none {
        for declaration in inside.split(|token| token.text == ",") {
            let parameter = parameter(declaration, &name.text, name.line, comments)?;
            if parameters.iter().any(|other| other.name == parameter.name) {
                return fail(declaration[0].line, format!("kernel `{}` has two parameters `{}`", name.text, parameter.name));
            }
            parameters.push(parameter);
        }
    }
    Ok(Prototype { name: name.text.clone(), parameters, line: name.line, launch: None })
}

/// From the line that begins with `launch:`, in the lines of comment directly above `line`, to the last of them.
fn launch_comment(line: usize, comments: &[Comment]) -> Option<String> {
    let text = |line: usize| comments.iter().find(|comment| comment.line == line).map(|comment| comment.text.as_str());
    let mut words: Vec<&str> = Vec::new();
    for above in (1..line).rev() {
        let comment = text(above)?;
        if let Some(first) = comment.strip_prefix("launch:") {
            words.push(first.trim());
            words.reverse();
            return Some(words.join(" "));
        }
        words.push(comment);
    }
    None
}

fn parameter(tokens: &[Token], kernel: &str, line: usize, comments: &[Comment]) -> Result<Parameter, Failure> {
    let Some((name, declared)) = tokens.split_last() else {
        return fail(line, format!("kernel `{kernel}`: a parameter is missing between two commas"));
    };
    let written = declared.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ").replace(" *", "*");
    let unsupported = |why: &str| fail(name.line, format!("kernel `{kernel}`: `{written} {}`: {why}", name.text));
    if !name.is_word() || declared.is_empty() {
        return unsupported("expected a type and a name");
    }
    let stars = declared.iter().filter(|token| token.text == "*").count();
    let pointee = declared.iter().take_while(|token| token.text != "*");
    let behind = declared.iter().skip_while(|token| token.text != "*");
    if !behind.clone().all(|token| ["*", "const", "__restrict__", "__restrict"].contains(&token.text.as_str())) {
        return unsupported("expected a type, `*` at most once, and a name");
    }
    let constant = pointee.clone().any(|token| token.text == "const");
    let by_value = pointee.clone().any(|token| token.text == "__grid_constant__");
    let words: Vec<&str> =
        pointee.map(|token| token.text.as_str()).filter(|word| !["const", "__grid_constant__"].contains(word)).collect();
    let spelled = words.join(" ");
    let Some((rust, _)) = TYPES.iter().find(|(_, names)| names.contains(&spelled.as_str())) else {
        let known = TYPES.iter().map(|(_, names)| names[0]).collect::<Vec<_>>().join(", ");
        return unsupported(&format!("unknown type; launchers know {known}, by value or behind one pointer"));
    };
    let kind = match (stars, *rust) {
        (0, TENSOR_MAP) if !(constant && by_value) => {
            return unsupported("a tensor map is passed as `const __grid_constant__ TensorMap`");
        }
        (0, ELEMENT) => return unsupported("an element is passed as `float`, for its type is chosen when the file is compiled"),
        (0, rust) => Kind::Value(rust),
        (1, TENSOR_MAP) => return unsupported("a tensor map is passed as `const __grid_constant__ TensorMap`"),
        (1, element) => Kind::Pointer { element, constant },
        _ => return unsupported("a pointer to a pointer cannot be passed"),
    };
    let comment = comments.iter().find(|comment| comment.line == name.line).map(|comment| comment.text.clone());
    Ok(Parameter { name: name.text.clone(), kind, declared: written, comment })
}

/// Where the parenthesis that opens at `open` closes.
fn closing(tokens: &[Token], open: usize) -> Result<usize, Failure> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" => depth += 1,
            ")" if depth == 1 => return Ok(at),
            ")" => depth -= 1,
            "{" | ";" => break,
            _ => {}
        }
    }
    fail(tokens[open].line, "this parenthesis is never closed")
}

#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }
}

struct Comment {
    text: String,
    line: usize,
}

/// Words, numbers, strings and single characters, without preprocessor lines; comments apart.
fn tokenize(text: &str) -> Result<(Vec<Token>, Vec<Comment>), Failure> {
    let (mut tokens, mut comments) = (Vec::new(), Vec::new());
    let (mut rest, mut line) = (text, 1);
    let mut begins_line = true;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            comments.push(Comment { text: rest[2..end].trim().to_owned(), line });
            end
        } else if let Some(comment) = rest.strip_prefix("/*") {
            match comment.find("*/") {
                Some(end) => end + 4,
                None => return fail(line, "this comment is never closed"),
            }
        } else if first == '#' && begins_line {
            directive_length(rest)
        } else if first == '"' || first == '\'' {
            let end = quoted_length(rest, first).ok_or(Failure { line, message: "this quotation is never closed".to_owned() })?;
            tokens.push(Token { text: rest[..end].to_owned(), line });
            end
        } else if first.is_ascii_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            tokens.push(Token { text: rest[..end].to_owned(), line });
            end
        } else {
            if !first.is_whitespace() {
                tokens.push(Token { text: first.to_string(), line });
            }
            first.len_utf8()
        };
        begins_line = first == '\n' || (begins_line && first.is_whitespace());
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    Ok((tokens, comments))
}

/// To the end of the line, or of the last that a backslash continues.
fn directive_length(text: &str) -> usize {
    let mut length = 0;
    for line in text.split_inclusive('\n') {
        length += line.len();
        if !line.trim_end().ends_with('\\') {
            // The end of the line stays, so that what follows begins one.
            return length - usize::from(line.ends_with('\n'));
        }
    }
    length
}

fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' => return None,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}
