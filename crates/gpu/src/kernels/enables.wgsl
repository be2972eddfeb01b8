//@if F16
enable f16;
//@end
//@if MATRIX
enable wgpu_cooperative_matrix;
//@end
