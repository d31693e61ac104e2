use super::*;
use proptest::prelude::*;

/// The old content of C between and below its rows, which nothing may touch.
const UNTOUCHED: f32 = 1234.5;

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows,
    Columns,
    /// Neither stride is 1.
    Scattered,
}

/// An operand with values of its own, NaN wherever the view does not reach.
struct Operand {
    data: Vec<f32>,
    row_stride: usize,
    col_stride: usize,
}

impl Operand {
    fn new(rows: usize, cols: usize, layout: Layout, gap: usize, seed: u32) -> Self {
        let (row_stride, col_stride) = match layout {
            Layout::Rows => (cols + gap, 1),
            Layout::Columns => (1, rows + gap),
            Layout::Scattered => (2 * cols + gap, 2),
        };
        let mut data = vec![f32::NAN; extent(rows, cols, row_stride, col_stride)];
        let mut state = seed;
        for i in 0..rows {
            for j in 0..cols {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                data[i * row_stride + j * col_stride] = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            }
        }
        Self { data, row_stride, col_stride }
    }

    fn view(&self, rows: usize, cols: usize) -> MatRef<'_, f32> {
        self.view_of(&self.data, rows, cols)
    }

    /// The same matrix over elements of another type.
    fn view_of<'a, E>(&self, data: &'a [E], rows: usize, cols: usize) -> MatRef<'a, E> {
        MatRef { data, rows, cols, row_stride: self.row_stride, col_stride: self.col_stride }
    }

    fn to_bf16(&self) -> Vec<bf16> {
        self.data.iter().map(|&x| bf16::from_f32(x)).collect()
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    k: usize,
    n: usize,
    a: Layout,
    b: Layout,
    /// B holds numbers of bf16: as f32, or as they are.
    b_values: Values,
    gap: usize,
    alpha: f32,
    accumulate: bool,
}

/// What B holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    F32,
    /// Numbers of bf16, as f32.
    Rounded,
    BF16,
}

impl Case {
    fn operand_b(&self) -> Operand {
        let mut b = Operand::new(self.k, self.n, self.b, self.gap, 2);
        if self.b_values != Values::F32 {
            b.data = b.to_bf16().into_iter().map(f32::from).collect();
        }
        b
    }

    /// C by the given path, old content 0.5.
    fn run(&self, path: Path, threads: Option<usize>) -> Vec<f32> {
        let Case { m, k, n, gap, .. } = *self;
        let a = Operand::new(m, k, self.a, gap, 1);
        let b = self.operand_b();
        let narrow = b.to_bf16();
        let mut c = vec![UNTOUCHED; m * (n + gap)];
        for row in c.chunks_mut(n + gap) {
            row[..n].fill(if self.accumulate { 0.5 } else { f32::NAN });
        }
        let mut run = |parallel| {
            let c = MatMut::with_pitch(&mut c, m, n, n + gap);
            match self.b_values {
                Values::BF16 => path.product(c, self.alpha, a.view(m, k), b.view_of(&narrow, k, n), self.accumulate, parallel),
                _ => path.product(c, self.alpha, a.view(m, k), b.view(k, n), self.accumulate, parallel),
            }
        };
        match threads {
            None => run(false),
            Some(threads) => rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| run(true)),
        }
        c
    }

    /// The plain triple loop in f64, and the error that k roundings of sums in f32 can make.
    fn check(&self, c: &[f32], path: Path) {
        let Case { m, k, n, gap, .. } = *self;
        let a = Operand::new(m, k, self.a, gap, 1);
        let b = self.operand_b();
        for i in 0..m {
            for j in 0..n {
                let (mut sum, mut size) = (0.0, 0.5);
                for p in 0..k {
                    let term = f64::from(a.view(m, k).from(i, p)[0]) * f64::from(b.view(k, n).from(p, j)[0]);
                    sum += term;
                    size += term.abs();
                }
                let expected = f64::from(self.alpha) * sum + if self.accumulate { 0.5 } else { 0.0 };
                let bound = (k + 2) as f64 * f64::from(f32::EPSILON) / 2.0 * size * f64::from(self.alpha.abs().max(1.0));
                let got = c[i * (n + gap) + j];
                assert!((f64::from(got) - expected).abs() <= bound, "{path:?} {self:?}: C({i}, {j}) = {got}, expected {expected}");
            }
            assert!(c[i * (n + gap) + n..][..gap].iter().all(|&x| x == UNTOUCHED), "{path:?} {self:?}: wrote beyond row {i}");
        }
    }
}

fn bits(c: &[f32]) -> Vec<u32> {
    c.iter().map(|x| x.to_bits()).collect()
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![4 => Just(Layout::Rows), 4 => Just(Layout::Columns), 1 => Just(Layout::Scattered)]
}

fn case(
    m: impl Strategy<Value = usize>,
    k: impl Strategy<Value = usize>,
    n: impl Strategy<Value = usize>,
) -> impl Strategy<Value = Case> {
    let values = prop_oneof![Just(Values::F32), Just(Values::BF16)];
    (m, k, n, layout(), layout(), values, 0..20usize, prop_oneof![Just(1.0f32), Just(-0.75)], any::<bool>())
        .prop_map(|(m, k, n, a, b, b_values, gap, alpha, accumulate)| Case { m, k, n, a, b, b_values, gap, alpha, accumulate })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn small_products_match_the_triple_loop(case in case(1..40usize, 1..70usize, 1..150usize)) {
        for path in Path::available() {
            case.check(&case.run(path, None), path);
        }
    }

    #[test]
    fn threads_do_not_change_a_bit(case in case(1..300usize, 1..40usize, 1..300usize)) {
        for path in Path::available() {
            let alone = bits(&case.run(path, None));
            for threads in 1..4 {
                prop_assert!(alone == bits(&case.run(path, Some(threads))), "{path:?} with {threads} threads");
            }
        }
    }
}

#[test]
fn large_products_match_the_triple_loop() {
    // Several blocks of k, of columns and of rows, each with a remainder.
    for (m, k, n) in
        [(150, 1100, 70), (17, 513, 600), (530, 40, 33), (300, 520, 1), (1, 2000, 700), (16, 130, 1030), (250, 100, 1100)]
    {
        for a in [Layout::Rows, Layout::Columns, Layout::Scattered] {
            for b in [Layout::Rows, Layout::Columns, Layout::Scattered] {
                for (alpha, accumulate) in [(1.0, false), (-0.75, true)] {
                    for b_values in [Values::F32, Values::BF16] {
                        let case = Case { m, k, n, a, b, b_values, gap: 3, alpha, accumulate };
                        for path in Path::available() {
                            let c = case.run(path, Some(3));
                            case.check(&c, path);
                            assert!(bits(&c) == bits(&case.run(path, None)), "{path:?} {case:?}: three threads");
                        }
                    }
                }
            }
        }
    }
}

/// As weights lie, widening happens on the way to the same sums.
#[test]
fn bf16_gives_the_bits_of_the_same_numbers_in_f32() {
    for (m, k, n) in [(1, 1, 1), (1, 513, 257), (3, 31, 130), (16, 130, 33), (17, 70, 65), (150, 1100, 70)] {
        let case = |b_values| {
            let (a, b) = (Layout::Rows, Layout::Columns);
            Case { m, k, n, a, b, b_values, gap: 1, alpha: 1.0, accumulate: false }
        };
        for path in Path::available().filter(|path| !matches!(path, Path::Fallback)) {
            let [rounded, narrow] = [Values::Rounded, Values::BF16].map(|values| bits(&case(values).run(path, Some(2))));
            assert!(rounded == narrow, "{path:?}: {m} x {k} x {n}");
        }
    }
}

#[test]
fn a_wrong_product_is_noticed() {
    let case = Case {
        m: 20,
        k: 600,
        n: 40,
        a: Layout::Rows,
        b: Layout::Columns,
        b_values: Values::F32,
        gap: 1,
        alpha: 1.0,
        accumulate: true,
    };
    let path = Path::detect();
    let right = case.run(path, None);
    for (place, value) in [(41 * 19 + 39, right[41 * 19 + 39] + 1e-2), (41 * 3, f32::NAN), (41 * 7 + 40, 0.0)] {
        let mut wrong = right.clone();
        wrong[place] = value;
        assert!(std::panic::catch_unwind(|| case.check(&wrong, path)).is_err());
    }
}

#[test]
fn double_precision() {
    let a: Vec<f64> = (0..6).map(f64::from).collect();
    let mut c = [1.0, 1.0, 1.0, 1.0];
    matmul(MatMut::new(&mut c, 2, 2), 0.5, MatRef::new(&a, 2, 3), MatRef::new(&a, 2, 3).t(), true, false);
    assert_eq!(c, [3.5, 8.0, 8.0, 26.0]);
}

#[test]
fn empty_products() {
    let a = [0f32; 6];
    let mut c = [f32::NAN; 6];
    matmul(MatMut::with_pitch(&mut c[..5], 2, 2, 3), 1.0, MatRef::new(&a, 2, 0), MatRef::new(&a, 0, 2), false, true);
    assert_eq!([c[0], c[1], c[3], c[4]], [0.0; 4], "an empty sum is zero");
    assert!(c[2].is_nan() && c[5].is_nan(), "what lies between the rows is left alone");
    matmul(MatMut::new(&mut c, 2, 3), 1.0, MatRef::new(&a, 2, 0), MatRef::new(&a, 0, 3), true, true);
    assert!(c[2].is_nan(), "nothing is added");
    matmul(MatMut::new(&mut [], 0, 3), 1.0, MatRef::new(&[], 0, 2), MatRef::new(&a, 2, 3), false, true);
    matmul(MatMut::new(&mut [], 2, 0), 1.0, MatRef::new(&a, 2, 3), MatRef::<f32>::new(&[], 3, 0), false, true);
}

#[test]
#[should_panic(expected = "B [3, 3] with strides 3 and 1 reaches beyond its 6 elements")]
fn short_data() {
    let a = [0f32; 6];
    matmul(MatMut::new(&mut [0.0; 6], 2, 3), 1.0, MatRef::new(&a, 2, 3), MatRef::new(&a, 3, 3), false, false);
}

#[test]
#[should_panic(expected = "A [2, 3] · B [2, 3] does not give C [2, 3]")]
fn shapes_that_do_not_fit() {
    let a = [0f32; 6];
    matmul(MatMut::new(&mut [0.0; 6], 2, 3), 1.0, MatRef::new(&a, 2, 3), MatRef::new(&a, 2, 3), false, false);
}
