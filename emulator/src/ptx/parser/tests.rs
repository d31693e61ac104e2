use super::parse;
use crate::Error;
use crate::ptx::ast::*;

/// Real outputs of NVRTC 13.0, and a text by hand that holds what compilers do not write.
pub(super) const TEXTS: [&str; 3] = [
    include_str!("../../../tests/ptx/calls.ptx"),
    include_str!("../../../tests/ptx/tensor.ptx"),
    include_str!("../../../tests/ptx/handwritten.ptx"),
];
const HEADER: &str = ".version 9.0 .target sm_90a ";

fn module(items: &str) -> Module {
    parse(&format!("{HEADER}{items}")).unwrap()
}

fn body(text: &str) -> Vec<Statement> {
    module(&format!(".entry k() {{ {text} }}")).functions[0].body.clone().unwrap()
}

fn instruction(text: &str) -> Instruction {
    match body(text).pop() {
        Some(Statement::Instruction(instruction)) => instruction,
        other => panic!("{other:?}"),
    }
}

fn operand(text: &str) -> Operand {
    instruction(&format!("op {text};")).operands.remove(0)
}

fn variable(text: &str) -> Variable {
    module(text).variables.remove(0)
}

fn name(text: &str) -> Operand {
    Operand::Name(text.into())
}

/// Line, column and message of the syntax error.
fn error(text: &str) -> (u32, u32, String) {
    match parse(text) {
        Err(Error::Syntax { line, column, message }) => (line, column, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn printed_modules_parse_back_to_equal_trees() {
    for text in TEXTS {
        let module = parse(text).unwrap();
        let printed = module.to_string();
        assert_eq!(parse(&printed).unwrap(), module, "{printed}");
    }
}

#[test]
fn the_header_is_kept() {
    let module = parse(TEXTS[2]).unwrap();
    assert_eq!((module.version, module.target.as_str()), ((8, 7), "sm_90a"));
    assert_eq!(module.files[&1], r#"dir/file \"quoted\".cu"#);
    assert_eq!(module.aliases["other"], "helper");
    assert_eq!(parse(".version 8.10 .target sm_80\0").unwrap().version, (8, 10));
}

/// As many instructions as there are semicolons in the text that end one.
#[test]
fn no_instruction_is_lost() {
    fn count(statements: &[Statement]) -> usize {
        let of = |statement: &Statement| match statement {
            Statement::Block(inner) => count(inner),
            Statement::Instruction(_) => 1,
            _ => 0,
        };
        statements.iter().map(of).sum()
    }
    for text in &TEXTS[..2] {
        let bodies: String = text.lines().skip_while(|line| *line != "{").filter(|line| !line.trim().starts_with("//")).collect();
        let declares = |piece: &&str| {
            [".reg", ".param .", ".pragma", ".shared .", ".local .", ".callproto", ".extern"].iter().any(|d| piece.contains(d))
        };
        let pieces: Vec<&str> = bodies.split(';').collect();
        // What follows the last semicolon is no statement.
        let expected = pieces.len() - 1 - pieces.iter().filter(|piece| declares(piece) && !piece.contains(", [")).count();
        let found: usize = parse(text).unwrap().functions.iter().filter_map(|f| f.body.as_deref()).map(count).sum();
        assert_eq!(found, expected);
    }
}

#[test]
fn variables() {
    let v = variable(".extern .shared .align 16 .b8 pool[];");
    assert_eq!((v.space, v.is_extern, v.align, v.length), (Space::Shared, true, 16, None));
    let v = variable(".const .v4 .f32 q[2][3];");
    assert_eq!((v.space, v.align, v.element, v.length), (Space::Const, 16, Type::F32, Some(24)));
    let v = variable("\n.global .f64 x;");
    assert_eq!((v.align, v.length, v.line, v.initial.len()), (8, Some(1), 2, 0));
    assert_eq!(module(".global .b8 a, b[WARP_SZ*2], c;").variables[1].length, Some(64));
    assert_eq!(variable(".visible .global .attribute(.unified(1, (2))) .b8 x[0];").length, Some(0));
}

#[test]
fn initial_values() {
    let integers = |values: &[i64]| values.iter().map(|&v| Initial::Integer(v as u64)).collect::<Vec<_>>();
    let rows = variable(".global .s32 rows[][3] = {{-1}, {2, 3, 4}, {5}};");
    assert_eq!((rows.length, rows.initial), (Some(9), integers(&[-1, 0, 0, 2, 3, 4, 5, 0, 0])));
    let short = variable(".global .b8 x[5] = {0x10, 010, 0b11U};");
    assert_eq!((short.length, short.initial), (Some(5), integers(&[16, 8, 3])));
    assert_eq!(variable(".global .v4 .f32 x[] = {1.0};").length, Some(4));
    let address = |name: &str, offset, generic| Initial::Address { name: name.into(), offset, generic };
    assert_eq!(
        variable(".global .u64 p[4] = {generic(a)+4, b+8, c, d-4};").initial,
        [address("a", 4, true), address("b", 8, false), address("c", 0, false), address("d", -4, false)]
    );
    assert_eq!(
        variable(".global .f32 f[4] = {0f3F800000, -0f40000000, 2.5e-1, 0dBFF0000000000000};").initial,
        [1.0, -2.0, 0.25, -1.0].map(Initial::Float)
    );
    // The payload of a signalling NaN is kept, 29 bits further up.
    let Initial::Float(nan) = variable(".global .f32 f = 0fFF800001;").initial[0] else { panic!("a float") };
    assert_eq!(nan.to_bits(), 0xFFF0_0000_2000_0000);
}

#[test]
fn functions() {
    let parsed = module(
        ".extern .func (.param .b32 r) vprintf (.param .b64 a, .param .align 8 .b8 b[16]) ;\n\
         .func (.reg .u32 r) f (.reg .u32 a) { ret; }\n\
         .weak .entry k (.param .u64 .ptr .shared .align 64 p) .maxntid 128, 1, 1 .minnctapersm 2 .blocksareclusters { }",
    );
    let [extern_function, func, kernel] = parsed.functions.as_slice() else { panic!("{parsed:?}") };
    assert_eq!((extern_function.is_kernel, &extern_function.body, extern_function.parameters[1].length), (false, &None, Some(16)));
    assert_eq!((func.returns[0].space, func.parameters[0].space, func.line), (Space::Register, Space::Register, 2));
    assert!(kernel.is_kernel);
    // What a pointer points to says nothing of the pointer's own alignment.
    assert_eq!((kernel.parameters[0].align, kernel.parameters[0].element), (8, Type::U64));
    let directives = [("maxntid", vec![128, 1, 1]), ("minnctapersm", vec![2]), ("blocksareclusters", vec![])];
    assert_eq!(kernel.directives, directives.map(|(name, numbers)| (name.to_string(), numbers)));
}

#[test]
fn statements() {
    let registers = |ty, name: &str, count| Statement::Registers { ty, name: name.into(), count, line: 1 };
    assert_eq!(body(".reg .b32 %r<8>, a;"), [registers(Type::B32, "%r", Some(8)), registers(Type::B32, "a", None)]);
    let label = |name: &str| Statement::Label { name: name.into(), line: 1 };
    assert_eq!(body("$L: { M: }"), [label("$L"), Statement::Block(vec![label("M")])]);
    let targets = vec!["a".to_string(), "b".to_string()];
    assert_eq!(body("t: .branchtargets a, b;"), [Statement::BranchTargets { name: "t".into(), targets, line: 1 }]);
    let prototype = |text: &str| Statement::CallPrototype { name: "p".into(), text: text.into(), line: 1 };
    assert_eq!(body("p : .callprototype (.param .b32 _)\t_ ();"), [prototype(".callprototype ( .param .b32 _ ) _ ( )")]);
    assert_eq!(body("p: .calltargets f, g;"), [prototype(".calltargets f , g")]);
}

#[test]
fn opcodes() {
    let i = instruction("@!%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes\n .L2::128B [%r1];");
    assert_eq!(i.guard, Some(Guard { register: "%p1".into(), negated: true }));
    assert_eq!(i.opcode, "cp");
    let modifiers = ["async", "bulk", "tensor", "2d", "shared::cluster", "global", "mbarrier::complete_tx::bytes", "L2::128B"];
    assert_eq!(i.modifiers, modifiers);
    assert_eq!(instruction("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 %r;").modifiers[2], "m16n8k16");
    assert_eq!(instruction("ret;").operands, []);
}

#[test]
fn names_and_numbers() {
    assert_eq!(operand("%tid.x"), name("%tid.x"));
    assert_eq!(operand("%lanemask_lt"), name("%lanemask_lt"));
    assert_eq!(operand("_"), Operand::Sink);
    assert_eq!(operand("!%p1"), Operand::Not("%p1".into()));
    assert_eq!(operand("%r1|_"), Operand::Pair(Box::new(name("%r1")), Box::new(Operand::Sink)));
    assert_eq!(operand("table+8*2"), Operand::Offset { name: "table".into(), offset: 16 });
    assert_eq!(operand("0f3f800000"), Operand::Float32(0x3F80_0000));
    assert_eq!(operand("-0F3F800000"), Operand::Float32(0xBF80_0000));
    assert_eq!(operand("0D3FF0000000000000"), Operand::Float64(1_f64.to_bits()));
    assert_eq!(operand("-1.5"), Operand::Float64((-1.5_f64).to_bits()));
    assert_eq!(operand("1e-3"), Operand::Float64(1e-3_f64.to_bits()));
}

#[test]
fn constant_expressions() {
    for (text, value) in [
        ("0", 0),
        ("-1", -1),
        ("0xFFFFFFFFFFFFFFFFU", -1),
        ("-9223372036854775808", i64::MIN),
        ("0x7fffffff", 0x7fff_ffff),
        ("017", 15),
        ("0b1010", 10),
        ("WARP_SZ", 32),
        ("(4*8)", 32),
        ("1+2*3-4", 3),
        ("10-4-3", 3),
        ("-(2+3) * 4", -20),
        ("17 / 5 % 2", 1),
        ("1 << 4 | 6 & 3 ^ 8", 26),
        ("1 << 64", 0),
        ("-8 >> 1", -4),
        ("-8 >> 100", -1),
        ("~0", -1),
        ("!7 + !0", 1),
        ("-9223372036854775808 / -1", i64::MIN),
    ] {
        assert_eq!(operand(text), Operand::Integer(value as u64), "{text}");
    }
}

#[test]
fn addresses_and_vectors() {
    let address = |base: Option<&str>, offset| Operand::Address { base: base.map(str::to_string), offset };
    assert_eq!(operand("[%rd1]"), address(Some("%rd1"), 0));
    assert_eq!(operand("[%rd1+-4]"), address(Some("%rd1"), -4));
    assert_eq!(operand("[name - 4 + 6]"), address(Some("name"), 2));
    assert_eq!(operand("[16]"), address(None, 16));
    assert_eq!(operand("{%r1, _, 7}"), Operand::Vector(vec![name("%r1"), Operand::Sink, Operand::Integer(7)]));
    let coordinates = || Operand::Vector(vec![name("%r1"), Operand::Integer(0)]);
    let list = Operand::AddressList(vec![name("%rd1"), coordinates()]);
    assert_eq!(instruction("op [%rd1, {%r1, 0}], [%r3];").operands, [list, address(Some("%r3"), 0)]);
}

#[test]
fn calls() {
    let list = |names: &[&str]| Operand::Vector(names.iter().copied().map(name).collect());
    let operands = |text: &str| instruction(text).operands;
    assert_eq!(
        operands("call.uni (retval0),\nf,\n(param0, param1\n)\n;"),
        [list(&["retval0"]), name("f"), list(&["param0", "param1"])]
    );
    assert_eq!(operands("call (r), %rd1, (p), prototype_0;"), [list(&["r"]), name("%rd1"), list(&["p"]), name("prototype_0")]);
    assert_eq!(operands("call f;"), [name("f")]);
    assert_eq!(operands("call f, ();"), [name("f"), list(&[])]);
}

#[test]
fn locations() {
    let text = ".loc 1 2 3\nmov a, b;\n.loc 2 5 1, function_name $L__info_string0, inlined_at 1 20 3\n{ mov c, d; } mov e, f;";
    let place = |file, line, column| Some(Location { file, line, column });
    let statements = body(text);
    let [Statement::Instruction(first), Statement::Block(inner), Statement::Instruction(last)] = statements.as_slice() else {
        panic!("{statements:?}")
    };
    let [Statement::Instruction(inner)] = inner.as_slice() else { panic!("{inner:?}") };
    assert_eq!((first.location, first.line), (place(1, 2, 3), 2));
    assert_eq!((inner.location, inner.line), (place(2, 5, 1), 4));
    assert_eq!((last.location, last.line), (place(2, 5, 1), 4));
    // It ends with its function.
    let functions = module(".func f() { .loc 1 2 3 ret; } .func g() { ret; }").functions;
    assert!(matches!(functions[1].body.as_deref(), Some([Statement::Instruction(Instruction { location: None, .. })])));
}

#[test]
fn instructions_are_printed_as_ptx() {
    for text in [
        "@!%p1 add.rn.f32 %f1, %f2, 0f3F800000;",
        "call.uni (retval0), f, (param0, -1);",
        "call (r), %rd1, (p), prototype_0;",
        "shfl.sync.idx.b32 %r1|%p2, %r3, 0, 31, -1;",
        "ld.global.v2.f32 {%f1, _}, [%rd1+-4];",
        "cp.async.bulk.tensor.2d.shared::cluster.global [%r1], [%rd1, {%r2, %r3}], [16];",
        "mov.u64 %rd1, table+8;",
        "setp.eq.and.f64 %p1, %fd1, 0d3FF0000000000000, !%p2;",
        "mov.u32 %r1, %tid.x;",
        "ret;",
    ] {
        assert_eq!(instruction(text).to_string(), text);
    }
}

/// Statements put in without a line of their own follow the one before; what was there keeps its line where it can.
#[test]
fn changed_modules_print_too() {
    let mut changed = parse(&format!("{HEADER}\n.entry k() {{\n\n bar.sync 0;\n\n ret; }}")).unwrap();
    let body = changed.functions[0].body.as_mut().unwrap();
    body.insert(1, Statement::Instruction(Instruction { line: 0, ..instruction("trap;") }));
    let again = parse(&changed.to_string()).unwrap();
    let line = |statement: &Statement| match statement {
        Statement::Instruction(instruction) => (instruction.opcode.clone(), instruction.line),
        other => panic!("{other:?}"),
    };
    let lines: Vec<_> = again.functions[0].body.iter().flatten().map(line).collect();
    assert_eq!(lines, [("bar", 4), ("trap", 4), ("ret", 6)].map(|(opcode, line)| (opcode.to_string(), line)));
}

#[test]
fn errors_say_where_and_what() {
    let at = |text: &str, place: (u32, u32), message: &str| {
        let (line, column, found) = error(text);
        assert_eq!((line, column), place, "{text}: {found}");
        assert!(found.contains(message), "{text}: {found}");
    };
    at("", (1, 1), "expected `.version`");
    at(".version 9.0\n.global", (2, 1), "expected `.target`, found `.global`");
    at(".version 9.0 .target sm_90\n.address_size 32", (2, 15), "64");
    at(".version 9.0 .target sm_90\nnonsense", (2, 1), "expected a directive, found `nonsense`");
    at(".version 9.0 .target sm_90 /* é */ é", (1, 36), "no place");
    at(".version 9.0 .target sm_90 /* ", (1, 28), "`*/`");
    at(".version 9.0 .target sm_90 .file 1 \"a\n\"", (1, 36), "closing quote");
    let inside = |text: &str, message: &str| {
        let (line, _, found) = error(&format!("{HEADER}\n.entry k() {{\n{text}\n}}"));
        assert!(line == 3 || line == 4, "{text}: line {line}");
        assert!(found.contains(message), "{text}: {found}");
    };
    inside("add.u32 a b;", "expected `,` or `;`, found `b`");
    inside("add.u32 a, b", "expected `,` or `;`, found `}`");
    inside("add.u32 a, ;", "expected an operand, found `;`");
    inside("mov.u32 a, 08;", "base 8");
    inside("mov.u32 a, 18446744073709551616;", "64 bits");
    inside("mov.u32 a, 1/(2-2);", "division by zero");
    inside("mov.f32 a, 0f3F80;", "8 hexadecimal digits");
    inside("mov.u64 a, b[1];", "indexed");
    inside("ld.u32 a, [];", "expected an address");
    inside("ld.u32 a, [b", "expected `,` or `]`");
    inside(".reg .v4 .f32 v;", "vectors of registers");
    inside(".local .b4 x;", "sub-byte");
    inside(".tex .u32 t;", "expected an instruction");
    inside(".reg .b32 %r<4294967296>;", "32 bits");
    let outside = |text: &str, message: &str| {
        let (_, _, found) = error(&format!("{HEADER}{text}"));
        assert!(found.contains(message), "{text}: {found}");
    };
    outside(".global .u8 a[] = {0xFF(b)};", "mask operator");
    outside(".global .u8 a[] = {mask(b)};", "mask operator");
    outside(".global .texref t;", "textures");
    outside(".global .align 3 .b8 a;", "power of two");
    outside(".global .b8 a[0x4000000000000000][4];", "64 bits");
    outside(".global .b64 a[0x4000000000000000];", "64 bits");
    outside(".global .b8 a[-1];", "-1 elements");
    outside(".global .b8 a[2] = {1, 2, 3};", "3 initial values");
    outside(".global .b8 a[2][2] = {{1, 2, 3}};", "3 initial values");
    outside(".global .b8 a[][0] = {1};", "rows without elements");
    outside(".global .b8 a[2][1<<40] = {{1}};", "too many");
    outside(".global .b8 a[2][];", "first extent");
    outside(".entry k() .maxthreads 3 { }", "expected a directive such as `.maxntid`");
    outside(".entry k() { ret;", "found the end of the text");
}

#[test]
fn depth_is_bounded() {
    for (open, close) in
        [("{", "}"), ("mov a, (", ");"), ("mov a, -", "1;"), ("mov a, {", "};"), ("mov a, [", "];"), ("mov a, ~ ", "1;")]
    {
        let (first, inner) = open.split_at(open.len() - open.trim_start_matches("mov a, ").len());
        let text = format!("{HEADER}.entry k() {{ {first}{} {close}", inner.repeat(100_000));
        assert!(error(&text).2.contains("levels deep"), "{open}");
    }
    let nested = format!("{HEADER}.global .b8 a[1] = {}", "{".repeat(100_000));
    assert!(error(&nested).2.contains("nested"));
}
