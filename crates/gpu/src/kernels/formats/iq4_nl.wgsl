// IQ4_NL: d * LEVELS[q].
//@include formats/parts/nibbles
//@include formats/parts/iq4_levels
//@include formats/parts/scale_d
//@include formats/parts/block
alias Quants = vec4<u32>;
