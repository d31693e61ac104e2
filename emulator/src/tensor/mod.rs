//! The layouts of the matrix units: fragments, shared-memory swizzles, descriptors, tensor maps. Pure functions.
