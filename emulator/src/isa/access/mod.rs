//! Moves bytes between lanes and memory of any state space: checked, counted, and fast where a warp's accesses lie side by side.

mod global;
pub(crate) use global::SECTOR;
mod local;
mod rows;
pub(crate) use rows::Rows;
mod shared;

use super::address::Target;
use crate::check::Kind;
use crate::machine::execute::{Cx, lanes_of};
use crate::machine::registers::{Lanes, Mask, WARP, each_lane};
use crate::memory::bits::ones;
use crate::memory::{GLOBAL_START, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};

/// What one access moves, lane by lane: up to `W` words of 32 bits, in memory order; shorter data lies in the low bits.
pub(crate) struct Words<const W: usize> {
    pub words: [Lanes<u32>; W],
    /// Undefined bytes of each lane, the first in bit 0; means nothing unless `any_undefined`.
    pub undefined: Lanes<u32>,
    pub any_undefined: bool,
}

impl<const W: usize> Words<W> {
    #[inline(always)]
    pub(crate) fn zero() -> Self {
        Self { words: [[0; WARP]; W], undefined: [0; WARP], any_undefined: false }
    }

    /// Says which bytes of a lane are undefined.
    #[inline(always)]
    pub(crate) fn set_undefined(&mut self, lane: usize, bytes: u32) {
        self.undefined[lane] |= bytes;
        self.any_undefined |= bytes != 0;
    }
}

/// The space that a generic address means, and where its window begins.
pub(super) fn window_of(address: u64) -> (Target, u64) {
    for (window, target) in [(SHARED_WINDOW, Target::Shared), (LOCAL_WINDOW, Target::Local), (PARAM_WINDOW, Target::Argument)] {
        if address.wrapping_sub(window) < WINDOW_BYTES {
            return (target, window);
        }
    }
    (Target::Global, 0)
}

impl Cx<'_> {
    /// Reads `size` bytes per active lane; `size` is a power of two up to 32.
    #[inline(always)]
    pub(crate) fn load<const W: usize>(&mut self, target: Target, addresses: &Lanes<u64>, size: u32) -> Words<W> {
        let mut data = Words::zero();
        let active = self.active;
        match target {
            Target::Generic => {
                let mut left = active;
                while left != 0 {
                    let (target, lanes, local) = by_window(left, addresses);
                    self.load_from(target, lanes, &local, size, &mut data);
                    left &= !lanes;
                }
            }
            _ => self.load_from(target, active, addresses, size, &mut data),
        }
        data
    }

    /// Writes `size` bytes per active lane; `size` is a power of two up to 32.
    #[inline(always)]
    pub(crate) fn store<const W: usize>(&mut self, target: Target, addresses: &Lanes<u64>, size: u32, data: &Words<W>) {
        self.worker.effects += 1;
        let active = self.active;
        match target {
            Target::Generic => {
                let mut left = active;
                while left != 0 {
                    let (target, lanes, local) = by_window(left, addresses);
                    self.store_to(target, lanes, &local, size, data);
                    left &= !lanes;
                }
            }
            _ => self.store_to(target, active, addresses, size, data),
        }
    }

    /// Whether a store there stays among the threads of the block: in shared or local memory.
    pub(crate) fn goes_to_threads(&self, target: Target, address: u64) -> bool {
        let target = if target == Target::Generic { window_of(address).0 } else { target };
        matches!(target, Target::Shared | Target::Local)
    }

    /// The buffer that a global address lies in, and the offset.
    pub(crate) fn buffer_of(&self, address: u64) -> Option<(String, i64)> {
        let allocation = self.launch.memory.get(self.launch.memory.find(address)?);
        Some((allocation.name.clone(), address.wrapping_sub(allocation.address) as i64))
    }

    #[inline(always)]
    fn load_from<const W: usize>(&mut self, target: Target, lanes: Mask, addresses: &Lanes<u64>, size: u32, data: &mut Words<W>) {
        match target {
            Target::Shared => self.load_shared(lanes, addresses, size, data),
            Target::Local => self.load_local(lanes, addresses, size, data),
            Target::Argument => self.load_argument(lanes, addresses, size, data),
            Target::Global | Target::Generic => self.load_global(lanes, addresses, size, data),
        }
    }

    #[inline(always)]
    fn store_to<const W: usize>(&mut self, target: Target, lanes: Mask, addresses: &Lanes<u64>, size: u32, data: &Words<W>) {
        match target {
            Target::Shared => self.store_shared(lanes, addresses, size, data),
            Target::Local => self.store_local(lanes, addresses, size, data),
            Target::Argument => {
                let lane = lanes.trailing_zeros() as usize;
                self.report_at(Kind::ReadOnly, lane, Some(addresses[lane]), None, || {
                    "a kernel's parameters cannot be written".into()
                });
            }
            Target::Global | Target::Generic => self.store_global(lanes, addresses, size, data),
        }
    }

    /// Reads a kernel's packed arguments; nearly always the same for all lanes.
    #[inline(always)]
    fn load_argument<const W: usize>(&mut self, lanes: Mask, addresses: &Lanes<u64>, size: u32, data: &mut Words<W>) {
        let launch = self.launch.launch;
        let bytes_at = |address: u64| launch.arguments.get(address as usize..(address as usize).saturating_add(size as usize));
        let first = addresses[lanes.trailing_zeros() as usize];
        if addresses.iter().all(|&address| address == first)
            && let Some(bytes) = bytes_at(first)
        {
            for (word, bytes) in data.words.iter_mut().zip(bytes.chunks(4)) {
                *word = [word_of(bytes); WARP];
            }
            return;
        }
        for lane in lanes_of(lanes) {
            match bytes_at(addresses[lane]) {
                Some(bytes) => {
                    for (word, bytes) in data.words.iter_mut().zip(bytes.chunks(4)) {
                        word[lane] = word_of(bytes);
                    }
                }
                None => {
                    self.report_at(Kind::OutOfBounds, lane, Some(addresses[lane]), None, || {
                        "read beyond the kernel's parameters".into()
                    });
                }
            }
        }
    }

    /// Whether a lane's address is a multiple of the access's size; a finding if not.
    pub(crate) fn is_aligned(&mut self, lane: usize, address: u64, size: u32) -> bool {
        if address.is_multiple_of(u64::from(size)) {
            return true;
        }
        let buffer = if address >= GLOBAL_START { self.buffer_of(address) } else { None };
        self.report_at(Kind::Misaligned, lane, Some(address), buffer, || {
            format!("{size} bytes at an address that is no multiple of {size}")
        });
        false
    }
}

/// The lanes whose generic addresses lie in the same window as the first one's, and their addresses in that space.
fn by_window(lanes: Mask, addresses: &Lanes<u64>) -> (Target, Mask, Lanes<u64>) {
    let (target, window) = window_of(addresses[lanes.trailing_zeros() as usize]);
    let mut same = 0;
    for lane in lanes_of(lanes) {
        same |= u32::from(window_of(addresses[lane]).0 == target) << lane;
    }
    (target, same, each_lane(|lane| addresses[lane].wrapping_sub(window)))
}

/// Up to four bytes as the low bits of a word.
#[inline(always)]
fn word_of(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

/// Replaces the addresses of lanes that take no part by the first one's, so that loops over all lanes need no mask.
#[inline(always)]
fn fill_inactive(lanes: Mask, addresses: &Lanes<u64>) -> Lanes<u64> {
    if lanes == !0 {
        return *addresses;
    }
    let first = addresses[lanes.trailing_zeros() as usize];
    each_lane(|lane| if lanes >> lane & 1 == 1 { addresses[lane] } else { first })
}

/// Whether each lane's bytes follow those of the lane before it.
#[inline(always)]
pub(crate) fn is_contiguous(positions: &Lanes<u64>, size: u32) -> bool {
    let mut apart = 0;
    for lane in 0..WARP {
        apart |= positions[lane] ^ positions[0].wrapping_add(lane as u64 * u64::from(size));
    }
    apart == 0
}

/// Bytes of a word that an access of `size` bytes leaves undefined.
#[inline(always)]
fn undefined_of(defined: u32, size: u32) -> u32 {
    !defined & ones(size)
}
