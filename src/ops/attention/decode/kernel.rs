//! Attention to a cache on a device: `kernels/decode_attention.cu` and `kernels/decode_latent.cu`.

use crate::error::{Error, Result};
use crate::gpu::kernels::decode_attention::{DecodeAttentionAppend, DecodeAttentionCombine, DecodeAttentionForward};
use crate::gpu::kernels::decode_latent::{DecodeLatentCombine, DecodeLatentForward};
use crate::gpu::{Context, ElementSlice, ElementSliceMut, Slice, SliceMut};

/// What is attended with and to. Widths of heads are multiples of 8.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Sequences.
    pub batch: usize,
    /// New tokens of each sequence.
    pub new_tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; 1 for latents.
    pub kv_heads: usize,
    /// Tokens that the cache has room for, of each sequence.
    pub capacity: usize,
    /// Blocks that share the keys of a sequence and head: see [`Extents::splits`].
    pub splits: usize,
}

/// Columns of a cached token's key and value for one head, up to 256 each.
#[derive(Debug, Clone, Copy)]
pub struct Widths {
    /// Of a query and key.
    pub key: usize,
    /// Of a value.
    pub value: usize,
}

/// Columns of a cached token's latent and of the rotated part of a key.
#[derive(Debug, Clone, Copy)]
pub struct LatentWidths {
    /// Of the latent, up to 512.
    pub rank: usize,
    /// Of the rotated part, up to 256.
    pub rotary: usize,
    /// Whether each query head has a rotated part of its own.
    pub per_head: bool,
}

/// What is written. The workspaces are not used where [`Extents::splits`] is 1.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// [rows, width of a value or latent]: a row for each sequence, new token and query head.
    pub o: ElementSliceMut<'a>,
    /// Workspace, [splits, rows, width].
    pub partial: SliceMut<'a, f32>,
    /// Workspace, [splits, rows, 2].
    pub stats: SliceMut<'a, f32>,
}

/// Queries of grouped heads.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// [batch · new_tokens, pitch]
    pub q: ElementSlice<'a>,
    /// Elements from one token's queries to the next one's.
    pub pitch: usize,
}

/// Keys of a block's tile at most; a block with fewer tiles than two has nothing to load ahead.
const KEYS_OF_A_BLOCK: usize = 128;
/// Two for each multiprocessor of today's devices. It depends on nothing else, for the order of sums depends on it.
const BLOCKS: usize = 264;
/// Rows of a block: those of one product of the tensor cores.
const ROWS: usize = 16;

impl Extents {
    /// Enough splits to keep a device busy when caches hold up to `longest` tokens.
    pub fn splits(batch: usize, new_tokens: usize, heads: usize, kv_heads: usize, longest: usize) -> usize {
        let blocks = batch * kv_heads * (heads / kv_heads.max(1) * new_tokens).div_ceil(ROWS);
        BLOCKS.div_ceil(blocks.max(1)).min(longest.div_ceil(KEYS_OF_A_BLOCK)).max(1)
    }

    /// Rows of the output: one for each new token and query head.
    pub fn rows(self) -> usize {
        self.batch * self.new_tokens * self.heads
    }

    fn check(self, op: &str, widths: [usize; 2], most: [usize; 2]) -> Result<()> {
        let Self { batch, new_tokens, heads, kv_heads, capacity, splits } = self;
        if widths.iter().zip(most).any(|(&width, most)| width == 0 || width > most || !width.is_multiple_of(8)) {
            return Err(Error::device(format!("{op}: heads of {widths:?} columns, which must be multiples of 8 up to {most:?}")));
        }
        let sizes = [batch, new_tokens, heads, kv_heads, capacity, splits];
        if sizes.contains(&0) || !heads.is_multiple_of(kv_heads) || new_tokens > capacity || self.rows() > i32::MAX as usize {
            return Err(Error::device(format!("{op}: no such extents: {self:?}")));
        }
        Ok(())
    }
}

/// `size` as a kernel takes it.
fn int(size: usize) -> Result<i32> {
    i32::try_from(size).map_err(|_| Error::device(format!("decode_attention: {size} is too large")))
}

/// Keys and values of each sequence's tokens, those of the new tokens among them.
#[derive(Debug, Clone, Copy)]
pub struct Cache<'a> {
    /// [batch, capacity, kv_heads, key], or the latents [batch, capacity, rank].
    pub first: ElementSlice<'a>,
    /// [batch, capacity, kv_heads, value], or the rotated keys [batch, capacity, rotary], or [batch, capacity, heads, rotary].
    pub second: ElementSlice<'a>,
    /// `[batch]`: tokens in it, at least the new ones.
    pub lengths: Slice<'a, i32>,
}

/// Queries attend to the cache's keys → `o` `[batch, new_tokens, heads, value]`.
pub fn grouped(
    context: &Context,
    extents: Extents,
    widths: Widths,
    to: Output<'_>,
    Queries { q, pitch }: Queries<'_>,
    cache: Cache<'_>,
    scale: f32,
) -> Result<()> {
    extents.check("decode_attention", [widths.key, widths.value], [256, 256])?;
    let defines = [("HEAD_DIM", widths.key as i64), ("VALUE_DIM", widths.value as i64)];
    let (Output { o, partial, stats }, Cache { first: keys, second: values, lengths }) = (to, cache);
    let [batch, new_tokens, heads, kv_heads] =
        [int(extents.batch)?, int(extents.new_tokens)?, int(extents.heads)?, int(extents.kv_heads)?];
    let [capacity, q_pitch, splits, rows] = [int(extents.capacity)?, int(pitch)?, int(extents.splits)?, int(extents.rows())?];
    let call = DecodeAttentionForward {
        o,
        partial,
        stats,
        q,
        keys,
        values,
        lengths,
        batch,
        new_tokens,
        heads,
        kv_heads,
        capacity,
        q_pitch,
        splits,
        scale,
    };
    context.launch(&defines, &call)?;
    if splits == 1 {
        return Ok(());
    }
    let (partial, stats) = (partial.as_slice(), stats.as_slice());
    context.launch(&defines, &DecodeAttentionCombine { o, partial, stats, rows, splits })
}

/// The queries of latent attention, already taken to the latents.
#[derive(Debug, Clone, Copy)]
pub struct LatentQueries<'a> {
    /// [batch, new_tokens, heads, r]
    pub latent: ElementSlice<'a>,
    /// The rotated parts, from the first one on.
    pub rotary: ElementSlice<'a>,
    /// Elements from one token's rotated parts to the next one's.
    pub rotary_pitch: usize,
    /// Elements from one head's rotated part to the next one's.
    pub rotary_stride: usize,
}

/// Queries attend to the cache's latents → `o` `[batch, new_tokens, heads, r]`, still to be multiplied by the values' projections.
pub fn latent(
    context: &Context,
    extents: Extents,
    widths: LatentWidths,
    to: Output<'_>,
    queries: LatentQueries<'_>,
    cache: Cache<'_>,
    scale: f32,
) -> Result<()> {
    let LatentWidths { rank, rotary, per_head } = widths;
    extents.check("decode_latent", [rank, rotary], [512, 256])?;
    if extents.kv_heads != 1 {
        return Err(Error::device(format!("decode_latent: {} latents of a token, there is one", extents.kv_heads)));
    }
    let defines = [("LATENT_DIM", rank as i64), ("ROTARY_DIM", rotary as i64), ("ROTARY_PER_HEAD", i64::from(per_head))];
    let (Output { o, partial, stats }, Cache { first: latents, second: rotary, lengths }) = (to, cache);
    let LatentQueries { latent: q, rotary: q_rotary, rotary_pitch, rotary_stride } = queries;
    let [batch, new_tokens, heads, capacity] =
        [int(extents.batch)?, int(extents.new_tokens)?, int(extents.heads)?, int(extents.capacity)?];
    let [q_rotary_pitch, q_rotary_stride, splits, rows] =
        [int(rotary_pitch)?, int(rotary_stride)?, int(extents.splits)?, int(extents.rows())?];
    let call = DecodeLatentForward {
        o,
        partial,
        stats,
        q,
        q_rotary,
        latents,
        rotary,
        lengths,
        batch,
        new_tokens,
        heads,
        capacity,
        q_rotary_pitch,
        q_rotary_stride,
        splits,
        scale,
    };
    context.launch(&defines, &call)?;
    if splits == 1 {
        return Ok(());
    }
    let (partial, stats) = (partial.as_slice(), stats.as_slice());
    context.launch(&defines, &DecodeLatentCombine { o, partial, stats, rows, splits })
}

/// Rows to be added to a cache.
#[derive(Debug, Clone, Copy)]
pub struct NewRows<'a> {
    /// [batch · new_tokens, pitch]
    pub rows: ElementSlice<'a>,
    /// Elements from one row to the next.
    pub pitch: usize,
    /// Elements that are kept of a row, a multiple of 8.
    pub width: usize,
}

/// Takes what is kept of new tokens to the end of the caches: `to` `[batch, capacity, width]` each. `lengths` `[batch]` count the
/// new tokens.
pub fn append(
    context: &Context,
    [batch, new_tokens, capacity]: [usize; 3],
    to: [ElementSliceMut<'_>; 2],
    new: [NewRows<'_>; 2],
    lengths: Slice<'_, i32>,
) -> Result<()> {
    if new.iter().any(|new| !new.width.is_multiple_of(8) || !new.pitch.is_multiple_of(8)) {
        return Err(Error::device(format!("decode_attention_append: widths and pitches that are not multiples of 8: {new:?}")));
    }
    let ([first, second], [a, b]) = (to, new);
    let [batch, new_tokens, capacity] = [int(batch)?, int(new_tokens)?, int(capacity)?];
    let [first_width, second_width, first_pitch, second_pitch] = [int(a.width)?, int(b.width)?, int(a.pitch)?, int(b.pitch)?];
    let (new_first, new_second) = (a.rows, b.rows);
    let call = DecodeAttentionAppend {
        first,
        second,
        new_first,
        new_second,
        lengths,
        batch,
        new_tokens,
        capacity,
        first_width,
        second_width,
        first_pitch,
        second_pitch,
    };
    context.launch(&[], &call)
}
