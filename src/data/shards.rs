//! The shards of a data set as one stream of tokens.
//!
//! Positions and documents are counted through, from the first shard to the last: whoever cuts the stream into samples or shuffles
//! them sees one set, however many files it came from and lies in. A document lies in one shard.

use super::{Documents, Shard, ShardOptions, Tokenizer, files};
use crate::{Error, Result};
use std::{
    ops::Range,
    path::{Path, PathBuf},
};

/// Tokenized documents, in one shard or several of the same tokenizer.
#[derive(Debug)]
pub struct Shards {
    /// Never empty.
    parts: Vec<Part>,
    tokens: u64,
    documents: u64,
}

/// A shard, and what stands before it.
#[derive(Debug)]
struct Part {
    shard: Shard,
    first_token: u64,
    first_document: u64,
}

impl Shards {
    /// The tokens of the files that `paths` name (see [`files`]), in that order: out of the cache, or tokenized now. A build that was
    /// stopped is gone on with. `progress` hears how many bytes of the files, of how many in all, are tokenized; it is not called
    /// where all shards are cached.
    ///
    /// # Errors
    /// Those of [`Documents`], of the tokenizer, and of writing to the cache directory.
    pub fn from_files(
        paths: &[impl AsRef<Path>],
        tokenizer: &Tokenizer,
        options: &ShardOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let files = files::expand(paths)?;
        // Says at once what is missing or empty, not after hours of tokenizing what stands before it.
        let total = Documents::open(&files, options.skip_bad_lines)?.bytes_total();
        let mut before = 0;
        let mut shards = Vec::new();
        for group in groups(&files, options.shard_bytes)? {
            shards.push(Shard::from_files(&group.files, tokenizer, options, &mut |done| progress(before + done, total))?);
            before += group.bytes;
        }
        Self::of(shards)
    }

    /// The tokens of documents in memory. Empty documents are passed over.
    ///
    /// # Errors
    /// No document that is not empty; those of the tokenizer and of writing to the system's temporary directory.
    pub fn from_documents<D: AsRef<str>>(documents: impl IntoIterator<Item = D>, tokenizer: &Tokenizer) -> Result<Self> {
        Self::of(vec![Shard::from_documents(documents, tokenizer)?])
    }

    /// `shards`, one after the other.
    ///
    /// # Errors
    /// No shard, or shards of tokenizers with other vocabularies or special tokens.
    pub fn of(shards: Vec<Shard>) -> Result<Self> {
        let made_by = |shard: &Shard| (shard.vocab_size(), shard.bos_id(), shard.eos_id(), shard.pad_id());
        if shards.is_empty() || shards.windows(2).any(|pair| made_by(&pair[0]) != made_by(&pair[1])) {
            return Err(Error::config("a data set needs a shard, and all its shards the same tokenizer"));
        }
        let (mut tokens, mut documents) = (0, 0);
        let part = |shard: Shard| {
            let part = Part { first_token: tokens, first_document: documents, shard };
            tokens += part.shard.tokens();
            documents += part.shard.documents();
            part
        };
        Ok(Self { parts: shards.into_iter().map(part).collect(), tokens, documents })
    }

    /// How many tokens the stream has.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How many documents the stream has.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// How many shards there are; never 0.
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// Entries of the vocabulary of the tokenizer that made the shards.
    pub fn vocab_size(&self) -> usize {
        self.parts[0].shard.vocab_size()
    }

    /// The token at the beginning of each document.
    pub fn bos_id(&self) -> Option<u32> {
        self.parts[0].shard.bos_id()
    }

    /// The token at the end of each document.
    pub fn eos_id(&self) -> Option<u32> {
        self.parts[0].shard.eos_id()
    }

    /// The token that fills short samples.
    pub fn pad_id(&self) -> Option<u32> {
        self.parts[0].shard.pad_id()
    }

    /// Bad lines that were passed over when the shards were built.
    pub fn skipped_lines(&self) -> u64 {
        self.parts.iter().map(|part| part.shard.skipped_lines()).sum()
    }

    /// Bytes of the shards' files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.shard.bytes()).sum()
    }

    /// The hash of the shards' contents: equal where the corpus is, and cut into shards alike.
    pub fn content(&self) -> blake3::Hash {
        match self.parts.as_slice() {
            [only] => only.shard.content(),
            parts => {
                let mut hasher = blake3::Hasher::new();
                for part in parts {
                    hasher.update(part.shard.content().as_bytes());
                }
                hasher.finalize()
            }
        }
    }

    /// The ids at `positions` of the stream, as far as they lie in it.
    pub fn read(&self, positions: Range<u64>) -> impl Iterator<Item = u32> + '_ {
        let first = self.part_with(|part| part.first_token <= positions.start);
        let parts = self.parts[first..].iter().take_while({
            let end = positions.end;
            move |part| part.first_token < end
        });
        parts.flat_map(move |part| {
            let local = |position: u64| position.saturating_sub(part.first_token);
            part.shard.read(local(positions.start)..local(positions.end))
        })
    }

    /// The positions of document `index` in the stream; empty at its end where there is no such document.
    pub fn document(&self, index: u64) -> Range<u64> {
        let part = &self.parts[self.part_with(|part| part.first_document <= index)];
        let local = part.shard.document(index - part.first_document);
        part.first_token + local.start..part.first_token + local.end
    }

    /// How many tokens each document has, in order.
    pub fn document_lengths(&self) -> impl Iterator<Item = u64> + '_ {
        self.parts.iter().flat_map(|Part { shard, .. }| {
            (0..shard.documents()).map(|index| shard.document(index)).map(|positions| positions.end - positions.start)
        })
    }

    /// The index of the document that holds `position`; [`Shards::documents`] behind the last token.
    pub fn document_at(&self, position: u64) -> u64 {
        let part = &self.parts[self.part_with(|part| part.first_token <= position)];
        part.first_document + part.shard.document_at(position - part.first_token)
    }

    /// The last part of which `begins` holds: it does for the first, and for none behind one for which it does not.
    fn part_with(&self, begins: impl Fn(&Part) -> bool) -> usize {
        self.parts.partition_point(begins).saturating_sub(1)
    }
}

/// Files that become one shard.
struct Group {
    files: Vec<PathBuf>,
    bytes: u64,
}

/// `files` in groups, in order, each closed when it comes to `least` bytes.
fn groups(files: &[PathBuf], least: u64) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for file in files {
        let bytes = file.metadata().map_err(|e| Error::io(file, e))?.len();
        match groups.last_mut().filter(|group| group.bytes < least) {
            Some(group) => {
                group.files.push(file.clone());
                group.bytes += bytes;
            }
            None => groups.push(Group { files: vec![file.clone()], bytes }),
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests;
