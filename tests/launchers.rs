//! The generator of typed calls (`build/`): what it reads in prototypes, what it writes, and what it refuses with which words.

#[allow(dead_code)] // evaluated by the library alone
#[path = "../src/gpu/kernels/expression.rs"]
mod expression;
#[path = "../build/generate.rs"]
mod generate;
#[path = "../src/gpu/kernels/plan.rs"]
mod plan;
#[path = "../src/gpu/kernels/prototype.rs"]
mod prototype;

use generate::{File, generate};
use plan::{Constants, Extents, Plan};
use prototype::{Kind, parse};

fn kinds(text: &str) -> Vec<(String, Kind)> {
    let kernels = parse(text).unwrap_or_else(|failure| panic!("{failure:?}"));
    let [kernel] = &kernels[..] else { panic!("{kernels:?}") };
    kernel.parameters.iter().map(|parameter| (parameter.name.clone(), parameter.kind)).collect()
}

fn pointer(element: &'static str) -> Kind {
    Kind::Pointer { element, constant: false }
}

fn constant(element: &'static str) -> Kind {
    Kind::Pointer { element, constant: true }
}

#[test]
fn every_type_and_spelling() {
    let text = "extern \"C\" __global__ void k(
        float* a, const float *b, float const * __restrict__ c, bf16* const d, const __nv_bfloat16* e, half *f, const __half* g,
        int* h, unsigned* i, unsigned int* j, const char* k, signed char* l, unsigned char* m, uint8_t* n, short* o,
        unsigned short* p, long long* q, unsigned long long int* r, size_t s, const double* t,
        int u, const unsigned v, float w, double x, long long y, uint64_t z, bf16 aa,
        const __grid_constant__ TensorMap map, __grid_constant__ const TensorMap other) {}";
    let expected = [
        pointer("f32"),
        constant("f32"),
        constant("f32"),
        pointer("half::bf16"),
        constant("half::bf16"),
        pointer("half::f16"),
        constant("half::f16"),
        pointer("i32"),
        pointer("u32"),
        pointer("u32"),
        constant("i8"),
        pointer("i8"),
        pointer("u8"),
        pointer("u8"),
        pointer("i16"),
        pointer("u16"),
        pointer("i64"),
        pointer("u64"),
        Kind::Value("u64"),
        constant("f64"),
        Kind::Value("i32"),
        Kind::Value("u32"),
        Kind::Value("f32"),
        Kind::Value("f64"),
        Kind::Value("i64"),
        Kind::Value("u64"),
        Kind::Value("half::bf16"),
        Kind::Value("TensorMap"),
        Kind::Value("TensorMap"),
    ];
    let found: Vec<Kind> = kinds(text).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(found, expected);
}

#[test]
fn attributes_comments_and_directives_are_no_obstacle() {
    let text = "
// extern \"C\" __global__ void not_this(int a);
/* extern \"C\" __global__ void nor_this(int a); */
#define KERNEL \\
    extern \"C\" __global__ void nor_that(int a)
const char quote = '\"', *text = \"extern __global__ \\\" {\";
extern \"C\" __global__ void __launch_bounds__(WARPS * (32), 2) __cluster_dims__(2, 1, 1) first(
    const float* x,   // [R, C]
    /* rows */ int R,
    int C) { bar(1, 2); }
extern \"C\" __global__ __launch_bounds__(256) void second() { }
extern \"C\" __global__ void third(void);
  # if 1
__device__ float helper(float x) { return x; }
";
    let kernels = parse(text).unwrap();
    let names: Vec<_> = kernels.iter().map(|kernel| (kernel.name.as_str(), kernel.parameters.len(), kernel.line)).collect();
    assert_eq!(names, [("first", 3, 7), ("second", 0, 11), ("third", 0, 12)]);
    let comments: Vec<_> = kernels[0].parameters.iter().map(|parameter| parameter.comment.as_deref()).collect();
    assert_eq!(comments, [Some("[R, C]"), None, None]);
}

#[test]
fn the_same_prototype_twice_is_one_kernel() {
    let twice = "#if A\nextern \"C\" __global__ void k(int a) {}\n#else\nextern \"C\" __global__ void k(int a) {}\n#endif";
    assert_eq!(parse(twice).unwrap().len(), 1);
    let failure = parse(&twice.replacen("int a", "float a", 1)).unwrap_err();
    assert!(failure.line == 4 && failure.message.contains("line 2"), "{failure:?}");
}

#[test]
fn what_cannot_be_launched_is_refused_with_its_line() {
    let kernel = |parameters: &str| format!("\n\nextern \"C\" __global__ void k({parameters}) {{}}");
    let cases = [
        ("\n\n__global__ void k(int a) {}".to_owned(), "extern \"C\""),
        ("\n\ntemplate <int N> __global__ void k(int a) {}".to_owned(), "extern \"C\""),
        ("\n\nextern \"C\" __global__ int k(int a) {}".to_owned(), "`int`"),
        ("\n\nextern \"C\" __global__ k(int a) {}".to_owned(), "void"),
        ("\n\nextern \"C\" __global__ void".to_owned(), "missing"),
        ("\n\nextern \"C\" __global__ void k(int a {}".to_owned(), "never closed"),
        (kernel("ELEMENT* x"), "`ELEMENT* x`: unknown type"),
        (kernel("float4* x"), "unknown type"),
        (kernel("element x"), "passed as `float`"),
        (kernel("void* x"), "unknown type"),
        (kernel("long n"), "unknown type"),
        (kernel("bool b"), "unknown type"),
        (kernel("float** x"), "pointer to a pointer"),
        (kernel("float x[4]"), "a type"),
        (kernel("float& x"), "unknown type"),
        (kernel("float* volatile x"), "a type"),
        (kernel("int"), "a type and a name"),
        (kernel("int a,, int b"), "missing"),
        (kernel("int a,"), "missing"),
        (kernel("int a, float a"), "two parameters `a`"),
        (kernel("TensorMap map"), "__grid_constant__"),
        (kernel("const TensorMap* map"), "__grid_constant__"),
        ("\n\n/* open".to_owned(), "never closed"),
        ("\n\nint x = \"open".to_owned(), "never closed"),
    ];
    for (text, words) in cases {
        let failure = parse(&text).expect_err(&text);
        assert!(failure.line == 3 && failure.message.contains(words), "{text}: {failure:?}");
    }
}

/// Any text, well-formed or not, is answered without a panic: every prefix of a file, and every file with one character replaced.
#[test]
fn broken_files_never_panic() {
    let text = include_str!("../kernels/axpy.cu");
    for (at, _) in text.char_indices() {
        let _ = parse(&text[..at]);
        for replacement in ["(", ")", "\"", "*", ",", "é", "/*"] {
            let _ = parse(&format!("{}{replacement}{}", &text[..at], &text[at + 1..]));
        }
    }
}

#[test]
fn the_launch_comment_is_that_above_the_kernel() {
    let text = "// launch: grid 9, block 9\n\n// Words.\n// launch: grid ceil_div(n, TILE),\n//         block 32\nextern \"C\" __global__ void k(int n) {}";
    assert_eq!(parse(text).unwrap()[0].launch.as_deref(), Some("grid ceil_div(n, TILE), block 32"));
    assert_eq!(parse("// launch: grid 1, block 1\n\nextern \"C\" __global__ void k() {}").unwrap()[0].launch, None);
}

#[test]
fn launch_comments_have_values() {
    let file = "#ifndef TILE\n#define TILE 64\n#endif\nconstexpr int STAGES = 3, BYTES = STAGES * max(TILE, 16) * sizeof(element);
        constexpr int ROUND = ROUND + 1;\nstatic constexpr int OTHER = sizeof(T);";
    let constants = Constants::new([file], &[("TILE".to_owned(), "32".to_owned())], 2);
    let extents = |text: &str| {
        let parameter = |name: &str| (name == "n").then_some(100);
        Plan::parse(text).and_then(|plan| plan.extents(&parameter, &constants))
    };
    let full =
        extents("grid (ceil_div(n, TILE), n > 64 && n != 100 ? 1 : 2), block (TILE / 2) * 4, shared BYTES + -8 % 3, registers 40");
    let expected = Extents { grid: [4, 2, 1], block: [64, 1, 1], shared: 3 * 32 * 2 - 2, registers: Some(40) };
    assert_eq!(full, Ok(expected));
    assert_eq!(extents("block(1, 2, 3), grid n").unwrap().block, [1, 2, 3]);
    let deep = "(".repeat(1000);
    for (text, words) in [
        ("", "expected"),
        ("grid 1", "`block` is missing"),
        ("grid 1, block 2, grid 3", "`grid` twice"),
        ("grid 1, block 2, colour 3", "`colour`"),
        ("grid 1 2, block 1", "`,` expected"),
        ("grid (1, 2, 3, 4), block 1", "at most three"),
        ("grid 1, block 1, shared (1, 2)", "one number"),
        ("grid m, block 1", "`m` is neither"),
        ("grid ROUND, block 1", "refers to itself"),
        ("grid OTHER, block 1", "unknown type"),
        ("grid n / (n - 100), block 1", "no value"),
        ("grid ceil_div(n, 0), block 1", "division by 0"),
        ("grid n * 9223372036854775807, block 1", "no value"),
        ("grid abs(n), block 1", "unknown function `abs`"),
        ("grid 99999999999999999999, block 1", "no integer"),
        (&format!("grid {deep}1, block 1"), "parentheses"),
        (&format!("grid {}1, block 1", "-".repeat(100_000)), "signs"),
    ] {
        let message = extents(text).expect_err(text);
        assert!(message.contains(words), "{text}: {message}");
    }
}

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn modules_lie_as_the_files_do() {
    let kernel = |name: &str| {
        format!(
            "// launch: grid 1, block 32\nextern \"C\" __global__ void {name}(const bf16* x, // [R, `C`]\n const element* y, element* z, int type) {{}}"
        )
    };
    let sources = [file("norm.cu", &kernel("norm_fwd")), file("ladder/softmax/01_naive.cu", &kernel("naive"))];
    let text = generate(&sources, &[file("common.cuh", "")]).unwrap();
    for part in [
        "&norm::SOURCE,",
        "&ladder::softmax::_01_naive::SOURCE,",
        "pub mod ladder {",
        "pub mod softmax {",
        "pub mod _01_naive {",
        "call! { NormFwd<'a>, \"norm_fwd\", {",
        "x: Slice<'a, half::bf16>,",
        "y: ElementSlice<'a>,",
        "z: ElementSliceMut<'a>,",
        "r#type: i32,",
        "`const bf16* x`, `[R, 'C']`",
        "(\"common.cuh\", include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/kernels/common.cuh\"))),",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}

#[test]
fn the_hash_is_of_names_and_texts() {
    let hash = |path: &str, text: &str, header: &str| {
        let out = generate(&[file(path, text)], &[file("common.cuh", header)]).unwrap();
        out.split_once("HASH: &str = \"").unwrap().1.split('"').next().unwrap().to_owned()
    };
    let first = hash("a.cu", "// 1", "// h");
    assert_eq!(first, hash("a.cu", "// 1", "// h"));
    for other in [hash("b.cu", "// 1", "// h"), hash("a.cu", "// 2", "// h"), hash("a.cu", "// 1", "// g")] {
        assert_ne!(first, other);
    }
}

#[test]
fn errors_of_the_generator_name_file_and_line() {
    let fails = |path: &str, text: &str| generate(&[file(path, text)], &[]).unwrap_err();
    let message = fails("op/k.cu", "\nextern \"C\" __global__ void k(float3 x) {}");
    assert!(message.starts_with("kernels/op/k.cu:2: ") && message.contains("float3"), "{message}");
    let message = fails("k.cu", "// launch: grid 1, block 1\nextern \"C\" __global__ void k(int self) {}");
    assert!(message.starts_with("kernels/k.cu:2: ") && message.contains("`self`"), "{message}");
    let launch = "// launch: grid 1, block 1\n";
    let message =
        fails("k.cu", &format!("{launch}extern \"C\" __global__ void a_b() {{}}\n{launch}extern \"C\" __global__ void aB() {{}}"));
    assert!(message.starts_with("kernels/k.cu:4: ") && message.contains("AB"), "{message}");
    let message = fails("k.cu", "// grid 1\nextern \"C\" __global__ void k() {}");
    assert!(message.starts_with("kernels/k.cu:2: ") && message.contains("launch:"), "{message}");
    let message = fails("k.cu", "// launch: grid 1\nextern \"C\" __global__ void k() {}");
    assert!(message.starts_with("kernels/k.cu:2: ") && message.contains("`block` is missing"), "{message}");
    for path in ["Upper.cu", "a-b.cu", "ä.cu", "self.cu"] {
        assert!(fails(path, "").starts_with(&format!("kernels/{path}:1: ")), "{path}");
    }
}
