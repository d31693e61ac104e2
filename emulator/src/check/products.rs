//! The registers that a warp shares with its `wgmma` instructions, which work on them until they have been waited for.
//!
//! What the ISA asks for (9.7.15.5.2, 9.7.15.7): nobody may touch the accumulator or the A fragment of a product before a
//! `wgmma.wait_group` for its group; and between any other access to a register and a product that uses it stands a
//! `wgmma.fence`, except between products that accumulate into the same registers in the same shape. One fence comes before the
//! first product in any case.

use crate::check::Kind;
use crate::machine::execute::Cx;

/// What one warp's products use.
#[derive(Default)]
pub(crate) struct Products {
    /// By the register's place among those of the warp's frames.
    registers: Vec<Register>,
    /// Groups committed so far: the number of the group that products join now.
    committed: u64,
    /// Groups below this number are complete.
    complete: u64,
    /// Fences so far.
    fences: u64,
}

/// What a product does with a register; two products may share one without a fence only if they do the same with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Part of A.
    Multiplicand,
    /// Part of an accumulator of so many registers.
    Accumulator(usize),
}

/// The last product that used a register, and the last other access.
#[derive(Debug, Clone, Copy, Default)]
struct Register {
    product: Option<Product>,
    access: Option<OtherAccess>,
}

#[derive(Debug, Clone, Copy)]
struct Product {
    pc: u32,
    group: u64,
    role: Role,
    /// Fences before it.
    fences: u64,
}

#[derive(Debug, Clone, Copy)]
struct OtherAccess {
    pc: u32,
    /// Fences before it.
    fences: u64,
}

/// Why a product may not use a register now: what the instruction at a place did with it.
enum Conflict {
    Access(u32),
    Product(u32),
}

impl Products {
    fn register(&mut self, place: usize) -> &mut Register {
        if self.registers.len() <= place {
            self.registers.resize(place + 1, Register::default());
        }
        &mut self.registers[place]
    }

    /// Another instruction accesses a register; the product that still uses it, if any.
    fn access(&mut self, place: usize, pc: u32) -> Option<Product> {
        let (fences, complete) = (self.fences, self.complete);
        let register = self.register(place);
        register.access = Some(OtherAccess { pc, fences });
        register.product.filter(|product| product.group >= complete)
    }

    /// A product begins to use a register.
    fn begin(&mut self, place: usize, pc: u32, role: Role) -> Option<Conflict> {
        let (group, fences, complete) = (self.committed, self.fences, self.complete);
        let register = self.register(place);
        let access = register.access.filter(|access| access.fences == fences).map(|access| Conflict::Access(access.pc));
        let product = (register.product)
            .filter(|before| before.group >= complete && before.role != role && before.fences == fences)
            .map(|before| Conflict::Product(before.pc));
        register.product = Some(Product { pc, group, role, fences });
        access.or(product)
    }
}

impl Cx<'_> {
    /// `wgmma.fence`
    pub(crate) fn fence_products(&mut self) {
        self.warp.products.fences += 1;
    }

    /// `wgmma.commit_group`
    pub(crate) fn commit_products(&mut self) {
        self.warp.products.committed += 1;
    }

    /// `wgmma.wait_group`: all but the last `pending` groups are complete.
    pub(crate) fn wait_for_products(&mut self, pending: u64) {
        let products = &mut self.warp.products;
        products.complete = products.complete.max(products.committed.saturating_sub(pending));
    }

    /// A product uses these registers, by their definedness ids, from now on.
    pub(crate) fn begin_product(&mut self, registers: impl Iterator<Item = (u32, Role)>) {
        let lane = self.active.trailing_zeros() as usize;
        if self.warp.products.fences == 0 {
            self.report(Kind::InvalidOperation, lane, || "no wgmma.fence before the first wgmma".into());
        }
        let pc = self.pc;
        let mut first = None;
        for (id, role) in registers {
            let place = self.warp.registers.place(id);
            if let Some(conflict) = self.warp.products.begin(place, pc, role) {
                first.get_or_insert((id, conflict));
            }
        }
        // Before any fence there is one finding already.
        let Some((id, conflict)) = first.filter(|_| self.warp.products.fences > 0) else { return };
        let (launch, name) = (self.launch, self.launch.program.register_name(pc, id));
        self.report(Kind::InvalidOperation, lane, || match conflict {
            Conflict::Access(pc) => {
                let place = launch.place(pc);
                format!("no wgmma.fence since `{name}` was accessed at {place}, `{}`", place.instruction)
            }
            Conflict::Product(pc) => {
                format!(
                    "no wgmma.fence since `{name}` was used by a wgmma of another shape, or as another operand, at {}",
                    launch.place(pc)
                )
            }
        });
    }

    /// An instruction that is no product accesses registers that products use somewhere.
    #[inline(never)]
    pub(crate) fn access_watched(&mut self, registers: &[u32]) {
        let (pc, launch, lane) = (self.pc, self.launch, self.active.trailing_zeros() as usize);
        for &id in registers {
            let place = self.warp.registers.place(id);
            let Some(product) = self.warp.products.access(place, pc) else { continue };
            let committed = product.group < self.warp.products.committed;
            self.report(Kind::NotWaitedFor, lane, || {
                let name = launch.program.register_name(pc, id);
                let what = if product.role == Role::Multiplicand { "a part of A" } else { "an accumulator" };
                let why = if committed { "no wgmma.wait_group since" } else { "its group was not even committed" };
                format!("`{name}` is {what} of the wgmma at {}, which nothing has waited for: {why}", launch.place(product.pc))
            });
        }
    }
}
