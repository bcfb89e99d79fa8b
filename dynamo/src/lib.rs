//! The algorithms of Annulus.
