#include "frame/frame.h"

const fermt::FrameKernels fermt::FERMT_ISA::frame_bfloat16 = kFrameKernels<BFloat16Products>;
