//! Lines and granules against granules alone, on random programs.

use std::collections::HashMap;

use super::super::order::BlockClock;
use super::*;
use crate::machine::scheduler::Random;

const BYTES: u64 = 640;

/// The last write and read of each granule.
type Plain = HashMap<u64, (Stamp, Stamp)>;

/// Notes the accesses lane by lane and granule by granule.
fn note_plain(
    plain: &mut Plain,
    offsets: &Lanes<u64>,
    mask: Mask,
    size: u32,
    accessor: &Accessor,
) -> Vec<(usize, u64, Stamp, bool)> {
    let mut conflicts = Vec::new();
    for lane in lanes_of(mask) {
        for granule in offsets[lane] / GRANULE..(offsets[lane] + u64::from(size)).div_ceil(GRANULE) {
            let bytes = offsets[lane]..offsets[lane] + u64::from(size);
            let within = (0..4).filter(|byte| bytes.contains(&(granule * GRANULE + byte))).map(|byte| 1 << byte).sum();
            let accessor = Accessor { stamp: accessor.stamp.with_bytes(within), ..*accessor };
            let nobody = Stamp::from_bits(0, accessor.split);
            let last = plain.entry(granule).or_insert((nobody, nobody));
            let (write, read) = *last;
            let stamp = accessor.follow(write, read, |other, wrote| conflicts.push((lane, granule * GRANULE, other, wrote)));
            *(if accessor.write { &mut last.0 } else { &mut last.1 }) = stamp;
        }
    }
    conflicts
}

#[test]
fn lines_find_what_granules_find() {
    let (mut found, mut whole) = (0, 0);
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let shadow = Shadow::new(BYTES);
        // In some programs every warp accesses whole lines, in others nothing is aligned, or much is strong.
        let (blocks, tidy, strong) = (1 + random.below(4) as u32, random.below(3) == 0, random.below(4) == 0);
        let odd = !tidy && random.below(2) == 0;
        // Two launches, the second after what the first left.
        for launch in 0..2 {
            let first = launch * 8;
            let split = Stamp::least(first);
            let mut plain = Plain::new();
            let mut clocks: Vec<BlockClock> = (1..=blocks).map(|block| BlockClock::new(first + block)).collect();
            for step in 0..60 {
                let clock = &mut clocks[random.below(blocks as usize)];
                if random.below(6) == 0 {
                    clock.fence(0);
                }
                let size = 1 << random.below(6);
                let mask = if tidy || random.below(3) > 0 { !0 } else { random.next() as Mask | 1 };
                let stride = [1, 1, 1, 1, 0, 2][random.below(if tidy { 4 } else { 6 })] * u64::from(size);
                let unit = if odd { u64::from(size) } else { LINE.max(u64::from(size)) };
                let room = BYTES.saturating_sub(31 * stride) / unit;
                if room == 0 {
                    continue;
                }
                let start = random.below(room as usize) as u64 * unit;
                let mut offsets: Lanes<u64> = std::array::from_fn(|lane| start + lane as u64 * stride);
                if !tidy && random.below(8) == 0 {
                    offsets.swap(random.below(WARP), random.below(WARP));
                }
                if offsets.iter().any(|offset| offset + u64::from(size) > BYTES) {
                    continue;
                }
                let strong = strong && random.below(4) == 0;
                // Lanes that read parts of one granule are noted together, which finds more than one lane after the other.
                let write = size < 4 || random.below(3) == 0;
                let stamp = Stamp::new(clock.block, clock.now, random.below(8), step, strong);
                let accessor = Accessor { clock, stamp, write, split };
                let mut conflicts = Vec::new();
                shadow.note(&offsets, mask, size, &accessor, &mut |conflict: Conflict| {
                    conflicts.push((conflict.lane, conflict.offset, conflict.other, conflict.wrote));
                });
                let mut expected = note_plain(&mut plain, &offsets, mask, size, &accessor);
                assert_eq!(conflicts.first(), expected.first(), "{seed}");
                let key = |&(lane, offset, _, wrote): &(usize, u64, Stamp, bool)| (lane, offset, wrote);
                conflicts.sort_by_key(key);
                expected.sort_by_key(key);
                assert_eq!(conflicts, expected, "{seed}");
                found += expected.len();
                for granule in 0..BYTES / GRANULE {
                    let nobody = Stamp::from_bits(0, split);
                    let noted = (shadow.writes.granule(granule as usize, split), shadow.reads.granule(granule as usize, split));
                    assert_eq!(noted, plain.get(&granule).copied().unwrap_or((nobody, nobody)), "{seed}: granule {granule}");
                }
            }
            whole += (0..(BYTES / LINE) as usize).filter(|&line| shadow.writes.line(line, split).is_some()).count();
        }
    }
    assert!(found > 10_000 && whole > 1_000, "{found} {whole}");
}
