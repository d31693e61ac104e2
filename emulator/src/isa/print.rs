//! `printf` and `assert` as device code calls them.
//!
//! `vprintf` takes a format and the address of the packed values: 4 bytes for what C promotes to `int`, 8 for all others, each at a
//! multiple of its size. The device understands the conversions `d i o u x X c s p e E f F g G` with C's flags, widths,
//! precisions and lengths; any other is written as it stands.

use super::address::Target;
use crate::check::Kind;
use crate::isa::access::Words;
use crate::machine::execute::{Cx, Execute, Flow, lanes_of};
use crate::machine::registers::{Reg, WARP};

/// Longest string that is read from memory.
const MAX_TEXT: usize = 1 << 16;
/// Largest width and precision.
const MAX_WIDTH: usize = 4096;
/// Calls whose output one worker keeps.
const MAX_CALLS: usize = 1 << 20;

/// `vprintf(format, values)`; the registers hold the local addresses of its parameters.
pub(super) struct Print {
    pub format: Reg<u64>,
    pub values: Reg<u64>,
    pub result: Option<Reg<u64>>,
}

impl Execute for Print {
    fn execute(&self, cx: &mut Cx) -> Flow {
        let mut counts = Words::<1>::zero();
        for lane in lanes_of(cx.active) {
            let (format, values) = (parameter(cx, lane, self.format, 8), parameter(cx, lane, self.values, 8));
            let mut memory = Memory { cx, lane, values, read: 0 };
            let format = memory.text(format);
            let (text, count) = render(&format, &mut memory);
            counts.words[0][lane] = count;
            let block = cx.blocks[cx.rank].index;
            let text = match cx.worker.printed.len() {
                kept if kept < MAX_CALLS => text,
                MAX_CALLS => "(what is printed from here on is dropped)\n".into(),
                _ => continue,
            };
            cx.worker.printed.push((block, text));
        }
        if let Some(result) = self.result {
            let addresses = *cx.get(result);
            cx.store(Target::Local, &addresses, 4, &counts);
        }
        Flow::Next
    }
}

/// `__assertfail(message, file, line, function, character size)`.
pub(super) struct AssertFail {
    pub message: Reg<u64>,
    pub file: Reg<u64>,
    pub line: Reg<u64>,
    pub function: Reg<u64>,
}

impl Execute for AssertFail {
    fn execute(&self, cx: &mut Cx) -> Flow {
        for lane in lanes_of(cx.active) {
            let line = parameter(cx, lane, self.line, 4);
            let [message, file, function] = [self.message, self.file, self.function].map(|register| {
                let address = parameter(cx, lane, register, 8);
                String::from_utf8_lossy(&Memory { cx, lane, values: 0, read: 0 }.text(address)).into_owned()
            });
            cx.report(Kind::Trap, lane, || format!("assertion `{message}` failed in {function} ({file}:{line})"));
        }
        Flow::Stop
    }
}

/// Reads a parameter of a call.
fn parameter(cx: &mut Cx, lane: usize, register: Reg<u64>, size: u32) -> u64 {
    let address = cx.get(register)[lane];
    read(cx, lane, Target::Local, address, size)
}

/// Reads up to 8 bytes of one lane.
fn read(cx: &mut Cx, lane: usize, target: Target, address: u64, size: u32) -> u64 {
    let active = std::mem::replace(&mut cx.active, 1 << lane);
    let data: Words<2> = cx.load(target, &[address; WARP], size);
    cx.active = active;
    if cx.checked() && data.any_undefined && data.undefined[lane] != 0 {
        cx.report(Kind::Uninitialized, lane, || "a value that was never written is printed".into());
    }
    u64::from(data.words[0][lane]) | u64::from(data.words[1][lane]) << 32
}

/// Where the values of a format come from.
trait Values {
    /// The next value, of 4 or 8 bytes.
    fn next(&mut self, size: u32) -> u64;
    /// The string at an address.
    fn text(&mut self, address: u64) -> Vec<u8>;
}

/// Values and strings in a lane's memory.
struct Memory<'c, 'a> {
    cx: &'c mut Cx<'a>,
    lane: usize,
    values: u64,
    read: u64,
}

impl Values for Memory<'_, '_> {
    fn next(&mut self, size: u32) -> u64 {
        let at = self.read.next_multiple_of(u64::from(size));
        self.read = at + u64::from(size);
        read(self.cx, self.lane, Target::Generic, self.values.wrapping_add(at), size)
    }

    fn text(&mut self, address: u64) -> Vec<u8> {
        let bytes = (0..MAX_TEXT as u64).map(|at| read(self.cx, self.lane, Target::Generic, address.wrapping_add(at), 1) as u8);
        bytes.take_while(|&byte| byte != 0).collect()
    }
}

/// `%-08.3lld` taken apart.
#[derive(Debug, Default, Clone, Copy)]
struct Conversion {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
    /// Bytes of an integer: 1, 2, 4 or 8.
    bytes: u32,
}

/// The text of a format, and how many values it took.
fn render(format: &[u8], values: &mut impl Values) -> (String, u32) {
    let (mut out, mut count) = (Vec::new(), 0);
    let mut rest = format;
    while let Some(start) = rest.iter().position(|&byte| byte == b'%') {
        out.extend_from_slice(&rest[..start]);
        rest = &rest[start..];
        let mut at = 1;
        let conversion = parse(rest, &mut at, values, &mut count);
        let letter = rest.get(at).copied().unwrap_or(0);
        let end = (at + 1).min(rest.len());
        if letter == b'%' {
            out.push(b'%');
        } else if let Some(text) = convert(conversion, letter, values) {
            out.extend(text);
            count += 1;
        } else {
            out.extend_from_slice(&rest[..end]);
        }
        rest = &rest[end..];
    }
    out.extend_from_slice(rest);
    (String::from_utf8_lossy(&out).into_owned(), count)
}

/// What stands between `%` and the letter; `at` is moved behind it.
fn parse(text: &[u8], at: &mut usize, values: &mut impl Values, count: &mut u32) -> Conversion {
    let mut conversion = Conversion { bytes: 4, ..Conversion::default() };
    loop {
        match text.get(*at) {
            Some(b'-') => conversion.left = true,
            Some(b'+') => conversion.plus = true,
            Some(b' ') => conversion.space = true,
            Some(b'#') => conversion.alternate = true,
            Some(b'0') => conversion.zeros = true,
            _ => break,
        }
        *at += 1;
    }
    let mut number = |at: &mut usize| -> i64 {
        if text.get(*at) == Some(&b'*') {
            *at += 1;
            *count += 1;
            return i64::from(values.next(4) as i32);
        }
        let mut number = 0i64;
        while let Some(digit) = text.get(*at).filter(|byte| byte.is_ascii_digit()) {
            number = (number * 10 + i64::from(digit - b'0')).min(MAX_WIDTH as i64);
            *at += 1;
        }
        number
    };
    let width = number(at);
    conversion.left |= width < 0;
    conversion.width = (width.unsigned_abs() as usize).min(MAX_WIDTH);
    if text.get(*at) == Some(&b'.') {
        *at += 1;
        // A negative precision is none.
        conversion.precision = usize::try_from(number(at)).ok().map(|precision| precision.min(MAX_WIDTH));
    }
    while let Some(length @ (b'h' | b'l' | b'z' | b'j' | b't')) = text.get(*at) {
        conversion.bytes = if *length == b'h' { conversion.bytes / 2 } else { 8 }.max(1);
        *at += 1;
    }
    conversion
}

/// One value as text; `None` for a letter that is no conversion.
fn convert(conversion: Conversion, letter: u8, values: &mut impl Values) -> Option<Vec<u8>> {
    let Conversion { bytes, precision, .. } = conversion;
    let mut integer = || {
        let unused = 64 - 8 * bytes;
        (values.next(bytes.max(4)) << unused, unused)
    };
    Some(match letter {
        b'd' | b'i' => {
            let (bits, unused) = integer();
            let value = bits as i64 >> unused;
            conversion.number(
                sign(conversion, value < 0),
                &conversion.digits(value.unsigned_abs().to_string()),
                precision.is_none(),
            )
        }
        b'u' | b'o' | b'x' | b'X' => {
            let (bits, unused) = integer();
            let value = bits >> unused;
            let text = match letter {
                b'u' => value.to_string(),
                b'o' => format!("{value:o}"),
                b'x' => format!("{value:x}"),
                _ => format!("{value:X}"),
            };
            let mut digits = conversion.digits(text);
            let prefix = match letter {
                b'x' if conversion.alternate && value != 0 => "0x",
                b'X' if conversion.alternate && value != 0 => "0X",
                _ => "",
            };
            if letter == b'o' && conversion.alternate && !digits.starts_with('0') {
                digits.insert(0, '0');
            }
            conversion.number(prefix, &digits, precision.is_none())
        }
        b'e' | b'E' | b'f' | b'F' | b'g' | b'G' => {
            let value = f64::from_bits(values.next(8));
            let text = float(conversion, value.abs(), letter.to_ascii_lowercase());
            let text = if letter.is_ascii_uppercase() { text.to_uppercase() } else { text };
            conversion.number(sign(conversion, value.is_sign_negative()), &text, value.is_finite())
        }
        b'p' => match values.next(8) {
            0 => conversion.pad(b"(nil)".to_vec()),
            address => conversion.pad(format!("{address:#x}").into_bytes()),
        },
        b'c' => conversion.pad(vec![values.next(4) as u8]),
        b's' => {
            let mut text = match values.next(8) {
                0 => b"(null)".to_vec(),
                address => values.text(address),
            };
            text.truncate(precision.unwrap_or(MAX_TEXT));
            conversion.pad(text)
        }
        _ => return None,
    })
}

fn sign(conversion: Conversion, negative: bool) -> &'static str {
    match conversion {
        _ if negative => "-",
        Conversion { plus: true, .. } => "+",
        Conversion { space: true, .. } => " ",
        _ => "",
    }
}

impl Conversion {
    /// At least as many digits as the precision says; none for a zero with precision 0.
    fn digits(&self, digits: String) -> String {
        match self.precision {
            Some(0) if digits == "0" => String::new(),
            Some(precision) => format!("{digits:0>precision$}"),
            None => digits,
        }
    }

    /// A number to its width: with zeros behind the sign if asked and allowed, else with spaces.
    fn number(&self, sign: &str, digits: &str, zeros: bool) -> Vec<u8> {
        let missing = self.width.saturating_sub(sign.len() + digits.len());
        if self.zeros && zeros && !self.left {
            return format!("{sign}{}{digits}", "0".repeat(missing)).into_bytes();
        }
        self.pad(format!("{sign}{digits}").into_bytes())
    }

    /// Text to its width with spaces.
    fn pad(&self, mut text: Vec<u8>) -> Vec<u8> {
        let missing = self.width.saturating_sub(text.len());
        let at = if self.left { text.len() } else { 0 };
        text.splice(at..at, std::iter::repeat_n(b' ', missing));
        text
    }
}

/// A value without its sign as `e`, `f` or `g` writes it.
fn float(conversion: Conversion, value: f64, letter: u8) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "nan" } else { "inf" }.into();
    }
    let precision = conversion.precision.unwrap_or(6);
    let point = |text: String| if conversion.alternate && !text.contains('.') { text + "." } else { text };
    let scientific = |precision: usize| {
        let text = format!("{value:.precision$e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        (digits.to_string(), exponent.parse::<i32>().unwrap_or(0))
    };
    let with_exponent =
        |digits: String, exponent: i32| format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs());
    match letter {
        b'f' => point(format!("{value:.precision$}")),
        b'e' => {
            let (digits, exponent) = scientific(precision);
            with_exponent(point(digits), exponent)
        }
        _ => {
            let significant = precision.max(1);
            let (digits, exponent) = scientific(significant - 1);
            let trim = |text: String| match text.contains('.') && !conversion.alternate {
                true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
                false => point(text),
            };
            if exponent < -4 || exponent >= significant as i32 {
                with_exponent(trim(digits), exponent)
            } else {
                let precision = (significant as i32 - 1 - exponent).max(0) as usize;
                trim(format!("{value:.precision$}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct List<'a>(std::iter::Copied<std::slice::Iter<'a, u64>>);

    impl Values for List<'_> {
        fn next(&mut self, _: u32) -> u64 {
            self.0.next().unwrap_or(0)
        }

        fn text(&mut self, address: u64) -> Vec<u8> {
            vec![b'a'; address as usize]
        }
    }

    fn print(format: &str, values: &[u64]) -> String {
        let (text, count) = render(format.as_bytes(), &mut List(values.iter().copied()));
        assert_eq!(count as usize, values.len(), "{format}");
        text
    }

    /// The right-hand sides are what a C library prints.
    #[test]
    fn conversions() {
        let negative = u64::from(-42i32 as u32);
        for (format, values, expected) in [
            ("thread %d\n", &[7][..], "thread 7\n"),
            ("%d|%5d|%-5d|%05d|%+d|% d|%.4d", &[negative, 42, 42, negative, 42, 42, 42], "-42|   42|42   |-0042|+42| 42|0042"),
            ("%u %x %X %#x %o %#o", &[negative, 255, 255, 255, 8, 8], "4294967254 ff FF 0xff 10 010"),
            ("%ld %lld %llu %lu", &[-1i64 as u64, i64::MIN as u64, u64::MAX, 1], "-1 -9223372036854775808 18446744073709551615 1"),
            ("%hhd %hd %hhu", &[0x1ff, 0x18000, 0x1ff], "-1 -32768 255"),
            ("%*d|%-*d|%.*d|%*d", &[4, 1, 4, 1, 3, 1, u64::from(-3i32 as u32), 1], "   1|1   |001|1  "),
            ("%c%c%%%5c|", &[104, 105, 33], "hi%    !|"),
            ("%s|%5s|%-5s|%.2s", &[3, 2, 2, 7], "aaa|   aa|aa   |aa"),
            ("%s %p %p", &[0, 0, 0x1f00], "(null) (nil) 0x1f00"),
            ("%.0d|%q|%", &[0], "|%q|%"),
            ("%08.3d|%#08x|%+05d", &[5, 0xab, 7], "     005|0x0000ab|+0007"),
        ] {
            assert_eq!(print(format, values), expected, "{format}");
        }
        for (format, value, expected) in [
            ("%f", 1.5, "1.500000"),
            ("%.0f", 2.5, "2"),
            ("%#.0f", 3.0, "3."),
            ("%8.2f|", -2.7582, "   -2.76|"),
            ("%-8.2f|", 2.7582, "2.76    |"),
            ("%08.2f", -2.7582, "-0002.76"),
            ("%e", 12345.678, "1.234568e+04"),
            ("%.2E", 1.0e-10, "1.00E-10"),
            ("%e", 0.0, "0.000000e+00"),
            ("%g", 0.0001, "0.0001"),
            ("%g", 0.00001, "1e-05"),
            ("%g", 100000.0, "100000"),
            ("%g", 1000000.0, "1e+06"),
            ("%g", 0.5, "0.5"),
            ("%#g", 0.5, "0.500000"),
            ("%.3g", 1234.5, "1.23e+03"),
            ("%.0g", 0.0, "0"),
            ("%G", f64::INFINITY, "INF"),
            ("%06f", f64::NEG_INFINITY, "  -inf"),
            ("%f", f64::NAN, "nan"),
            ("%f", -0.0, "-0.000000"),
            ("%g", 1e300, "1e+300"),
        ] {
            assert_eq!(print(format, &[value.to_bits()]), expected, "{format} {value}");
        }
    }
}
