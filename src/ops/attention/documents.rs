//! Documents in a row, seen from their keys.

use crate::error::{Error, Result};

/// For each token one past the last token of its document, `[B, T]`, given the first `[B, T]`.
///
/// An error where a token's document begins after it, or before the document of the token before it: the kernels skip the tiles
/// between documents, which must therefore lie one after the other.
pub fn document_ends(starts: &[i32], seq_len: usize) -> Result<Vec<i32>> {
    let mut ends = Vec::with_capacity(starts.len());
    for row in starts.chunks(seq_len.max(1)) {
        let falls = row.windows(2).position(|pair| pair[1] < pair[0]).map(|t| t + 1);
        if let Some(t) = falls.or_else(|| row.iter().enumerate().position(|(t, &start)| start < 0 || start as usize > t)) {
            return Err(Error::device(format!("attention: document_starts says {} for the token at {t}", row[t])));
        }
        let mut end = 0;
        for token in 0..row.len() {
            end = end.max(token + 1);
            while end < row.len() && row[end] as usize <= token {
                end += 1;
            }
            ends.push(end as i32);
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::document_ends;

    #[test]
    fn documents_end_where_the_next_begins() {
        assert_eq!(document_ends(&[0, 0, 2, 2, 2, 0, 1, 1, 3, 3], 5).unwrap(), [2, 2, 5, 5, 5, 1, 3, 3, 5, 5]);
        // A token sees what is at or after its own start: the formula, also where starts move inside a document.
        let starts = [0, 0, 1, 1, 3, 3, 5];
        let ends = document_ends(&starts, 7).unwrap();
        for (key, &end) in ends.iter().enumerate() {
            for (token, &start) in starts.iter().enumerate().skip(key) {
                assert_eq!(token < end as usize, start as usize <= key, "{token} {key}");
            }
        }
    }

    #[test]
    fn documents_in_disorder_are_refused() {
        assert!(document_ends(&[0, 1, 0], 3).unwrap_err().to_string().contains("says 0 for the token at 2"));
        assert!(document_ends(&[0, 2, 2], 3).unwrap_err().to_string().contains("says 2 for the token at 1"));
        assert!(document_ends(&[-1], 1).unwrap_err().to_string().contains("says -1"));
    }
}
