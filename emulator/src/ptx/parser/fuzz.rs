//! Whatever the text is: no panic, no hang, an error inside the text, or a tree that survives being printed.

use super::parse;
use super::tests::TEXTS;
use crate::Error;
use proptest::prelude::*;

fn check(text: &str) {
    match parse(text) {
        Ok(module) => {
            let printed = module.to_string();
            let again = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}\nof\n{text}"));
            // As text, for a NaN among the initial values differs from itself.
            assert_eq!(format!("{module:?}"), format!("{again:?}"), "{printed}\nof\n{text}");
        }
        Err(Error::Syntax { line, column, message }) => {
            assert!(!message.is_empty());
            let lines: Vec<&str> = text.split('\n').collect();
            let found = line.checked_sub(1).and_then(|index| lines.get(index as usize));
            assert!(
                found.is_some_and(|found| (1..=found.chars().count() + 1).contains(&(column as usize))),
                "{line}:{column} of\n{text}"
            );
        }
        Err(other) => panic!("{other}"),
    }
}

/// Pieces from which token soups are made: all that the parser asks for, and what breaks it off.
const PIECES: &str = ".version 9.0 .target sm_90a .address_size 64 .entry .func k f ( ) { } [ ] , ; : + - * / % << >> & | ^ ~ ! @ < > = \
     .param .reg .global .shared .const .local .extern .visible .b8 .b32 .u64 .f32 .pred .v4 .align 16 .ptr 0 1 -1 0x10 07 0b1 8U 1.5 \
     0f3F800000 0f7F800001 0d3FF0000000000000 WARP_SZ _ %r1 %p2 %tid.x $L generic mask call bra mov add .rn .uni .shared::cluster \
     .loc 1 2 3 , function_name inlined_at .file \"a.cu\" .pragma .section .alias .branchtargets .callprototype .calltargets .maxntid \
     .attribute .noreturn 18446744073709551615 9223372036854775808 // /* */ \" é";

fn soup(most: usize) -> impl Strategy<Value = String> {
    let pieces: Vec<&str> = PIECES.split_whitespace().collect();
    let gap = prop_oneof![4 => Just(" "), 1 => Just("\n"), 1 => Just("")];
    prop::collection::vec((prop::sample::select(pieces), gap), 0..most)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(piece, gap)| [piece, gap]).collect())
}

/// `text` with the character at `at` (a share of its length) replaced by `with`, or removed.
fn mutate(text: &str, at: prop::sample::Index, with: Option<char>) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let index = at.index(characters.len());
    characters.splice(index..=index, with);
    characters.into_iter().collect()
}

proptest! {
    #[test]
    fn random_text(text in "\\PC{0,200}") {
        check(&text);
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn token_soups(soup in soup(60)) {
        check(&soup);
        check(&format!(".version 9.0 .target sm_90a {soup}"));
        check(&format!(".version 9.0 .target sm_90a .global {soup}"));
        check(&format!(".version 9.0 .target sm_90a .entry k() {{ {soup}"));
    }

    /// Short, so that many are valid.
    #[test]
    fn statement_soups(soup in soup(6)) {
        check(&format!(".version 9.0 .target sm_90a .entry k() {{ {soup}; }}"));
        check(&format!(".version 9.0 .target sm_90a .entry k() {{ mov a, {soup}; }}"));
        check(&format!(".version 9.0 .target sm_90a .global .f32 x[] = {{ {soup} }};"));
    }

    #[test]
    fn truncations(which in 0..TEXTS.len(), at in any::<prop::sample::Index>()) {
        let text = TEXTS[which];
        let mut end = at.index(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        check(&text[..end]);
    }

    #[test]
    fn mutations(which in 0..TEXTS.len(), at in any::<prop::sample::Index>(), with in prop::option::of("[ -~\n]|é")) {
        check(&mutate(TEXTS[which], at, with.and_then(|text| text.chars().next())));
    }
}
