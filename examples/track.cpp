// Tracks a target through images with the compiled library alone: no Python, no torch, no OpenCV.
//
//   track model.fermt x,y,w,h frame0.ppm frame1.ppm ...
//
// model.fermt is what fk.frame.pack(model).save("model.fermt") wrote, of a model with the centre head. x,y,w,h is the
// target in frame0, in pixels: left, top, width, height. Frames are binary PPM, all of one size. Prints x,y,w,h,score
// for each frame after the first. README.md beside this file says how to build it.

#include <fermt.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr double kMargin = 10;  // pixels of a box that stay in the image, and its least side

struct alignas(64) Line {  // the library wants memory that starts at a multiple of 64 bytes
  uint8_t bytes[64];
};
using Memory = std::vector<Line>;

Memory allocate(int64_t bytes) { return Memory(static_cast<size_t>(bytes) / sizeof(Line) + 1); }

struct Box {
  double x, y, w, h;
};

struct Image {
  int64_t width, height;
  std::vector<uint8_t> pixels;  // (height, width, 3), RGB
};

[[noreturn]] void fail(const std::string& reason) { throw std::runtime_error(reason); }

void check(int32_t status, const std::string& doing) {
  if (status) fail(doing + ": " + fermt_status_text(status));
}

// A share of the library's loop for each processor. A program that tracks for long would keep its threads.
int32_t on_all_processors(int64_t begin, int64_t end, int64_t, fermt_parallel_body body, void* context) {
  const int64_t count = end - begin;
  const int64_t shares = std::min<int64_t>(count, std::max(1u, std::thread::hardware_concurrency()));
  const auto share = [=](int64_t i) { body(begin + count * i / shares, begin + count * (i + 1) / shares, context); };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < shares; ++i) others.emplace_back(share, i);
  share(0);
  for (std::thread& other : others) other.join();
  return 0;
}

Memory read_model(const std::string& path, int64_t* bytes) {
  std::error_code error;
  *bytes = static_cast<int64_t>(std::filesystem::file_size(path, error));
  if (error) fail(path + ": " + error.message());
  Memory model = allocate(*bytes);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(model.data()), *bytes)) fail(path + ": cannot be read");
  return model;
}

Image read_image(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path + ": cannot be read");
  const auto word = [&] {  // the header's next, past comments
    std::string text;
    while (file >> text && text[0] == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    return text;
  };
  const std::string kind = word(), width = word(), height = word(), largest = word();
  Image image{std::atoll(width.c_str()), std::atoll(height.c_str()), {}};
  if (kind != "P6" || largest != "255" || std::min(image.width, image.height) < 2 ||
      std::max(image.width, image.height) > 32768)
    fail(path + ": not a binary PPM (P6) of 8 bits a channel, 2 to 32768 pixels a side");
  file.get();  // one white space ends the header
  image.pixels.resize(static_cast<size_t>(3 * image.width * image.height));
  if (!file.read(reinterpret_cast<char*>(image.pixels.data()), static_cast<std::streamsize>(image.pixels.size())))
    fail(path + ": cut short");
  return image;
}

// What a crop's row or column is made of: two of the image's, -1 for black, and their weights.
struct Tap {
  int64_t from[2];
  int32_t weight[2];  // of kWhole
};
constexpr int32_t kWhole = 2048;

// Bilinear, in cv2.resize's fixed point. As in the authors' code, an image's last row and column count as outside.
std::vector<Tap> taps(int64_t start, int64_t side, int64_t size, int64_t length) {
  const auto place = [=](int64_t at) {
    const int64_t found = start + std::clamp<int64_t>(at, 0, side - 1);
    return found >= 0 && found < length - 1 ? found : -1;
  };
  const double scale = 1 / (static_cast<double>(size) / static_cast<double>(side));
  std::vector<Tap> result;
  for (int64_t i = 0; i < size; ++i) {
    const float at = static_cast<float>((static_cast<double>(i) + 0.5) * scale - 0.5), low = std::floor(at);
    const int64_t first = static_cast<int64_t>(low);
    const int32_t second_weight = static_cast<int32_t>(std::lrint((at - low) * kWhole));
    result.push_back({{place(first), place(first + 1)}, {kWhole - second_weight, second_weight}});
  }
  return result;
}

// The square of side ceil(factor * sqrt(w h)) around the box's centre, black outside the image, as RGB (size, size, 3)
// in `out`. Returns that side, in pixels of the image.
int64_t crop(const Image& image, const Box& box, double factor, int64_t size, uint8_t* out) {
  const int64_t side = static_cast<int64_t>(std::ceil(std::sqrt(box.w * box.h) * factor));
  const int64_t left = std::llrint(box.x + 0.5 * box.w - 0.5 * side);
  const int64_t top = std::llrint(box.y + 0.5 * box.h - 0.5 * side);
  if (left + side <= 0 || top + side <= 0 || left >= image.width - 1 || top >= image.height - 1)
    fail("the crop around the box does not meet the image");
  const std::vector<Tap> columns = taps(left, side, size, image.width), rows = taps(top, side, size, image.height);
  for (const Tap& row : rows)
    for (const Tap& column : columns)
      for (int64_t channel = 0; channel < 3; ++channel) {
        int32_t sum = 2;
        for (int i = 0; i < 2; ++i) {
          int32_t line = 0;
          for (int j = 0; j < 2; ++j)
            if (row.from[i] >= 0 && column.from[j] >= 0)
              line += column.weight[j] * image.pixels[3 * (row.from[i] * image.width + column.from[j]) + channel];
          sum += ((line >> 4) * row.weight[i]) >> 16;
        }
        *out++ = static_cast<uint8_t>(sum >> 2);
      }
  return side;
}

// The box at the best cell of the score map under a Hann window: the centre, w and h as fractions of the search region.
Box decode(const float* maps, int64_t grid) {
  const int64_t cells = grid * grid;
  const float *scores = maps, *w = maps + cells, *h = w + cells, *x = h + cells, *y = x + cells;
  const auto hann = [=](int64_t i) { return 0.5 * (1 - std::cos(2 * std::acos(-1.0) * (i + 1) / (grid + 1))); };
  int64_t best = 0;
  float highest = 0;
  for (int64_t cell = 0; cell < cells; ++cell) {
    const float score = scores[cell] * static_cast<float>(hann(cell / grid) * hann(cell % grid));
    if (score > highest) {
      highest = score;
      best = cell;
    }
  }
  return {(best % grid + x[best]) / grid, (best / grid + y[best]) / grid, w[best], h[best]};
}

// The box moved and cut to lie in the image, at least kMargin pixels of it a side.
Box clip(const Box& box, const Image& image) {
  const double width = static_cast<double>(image.width), height = static_cast<double>(image.height);
  const double margin = std::min({kMargin, width, height});
  const double left = std::clamp(box.x, 0.0, width - margin), right = std::clamp(box.x + box.w, margin, width);
  const double top = std::clamp(box.y, 0.0, height - margin), bottom = std::clamp(box.y + box.h, margin, height);
  return {left, top, std::max(margin, right - left), std::max(margin, bottom - top)};
}

void track(const std::string& model_path, const std::string& target, const std::vector<std::string>& frames) {
  if (fermt_abi_version() != FERMT_ABI_VERSION) fail("the library is of another version than fermt.h");
  Box box{};
  char more = 0;
  if (std::sscanf(target.c_str(), "%lf,%lf,%lf,%lf%c", &box.x, &box.y, &box.w, &box.h, &more) != 4)
    fail("'" + target + "' is not a box: x,y,w,h in pixels");
  Image image = read_image(frames[0]);
  const int64_t width = image.width, height = image.height;
  if (!(box.w > 0 && box.w < 1e6 && box.h > 0 && box.h < 1e6 && box.x < width && box.x + box.w > 0 && box.y < height &&
        box.y + box.h > 0))
    fail("the box " + target + " has no area or lies outside the first frame");

  fermt_frame_info_args info{};
  const Memory model = read_model(model_path, &info.model_bytes);
  info.struct_size = sizeof info;
  info.model = model.data();
  info.verify = info.batch = 1;
  check(fermt_frame_info(&info), model_path);
  if (info.head != FERMT_CENTER_HEAD) fail(model_path + ": has the corner head; this program decodes the centre head");

  const int64_t largest = std::max(info.template_size, info.search_size), cells = info.grid * info.grid;
  Memory pixels = allocate(3 * largest * largest), cache = allocate(info.cache_bytes);
  Memory workspace = allocate(info.workspace_bytes), outputs = allocate(info.map_channels * cells * 4);
  const uint8_t* crops[] = {pixels[0].bytes};
  void* written[] = {cache.data()};
  const void* read[] = {cache.data()};
  float* maps = reinterpret_cast<float*>(outputs.data());
  const fermt_encode_template_args encode{
      sizeof encode, on_all_processors, info.model,       info.model_bytes, info.batch,
      crops,         written,           info.cache_bytes, workspace.data(), info.workspace_bytes};
  const fermt_track_frame_args step{
      sizeof step, on_all_processors, info.model,       info.model_bytes,     info.batch, crops,
      read,        info.cache_bytes,  workspace.data(), info.workspace_bytes, maps,       nullptr};

  crop(image, box, info.template_factor, info.template_size, pixels[0].bytes);
  check(fermt_encode_template(&encode), "the template");
  for (size_t i = 1; i < frames.size(); ++i) {
    image = read_image(frames[i]);
    if (image.width != width || image.height != height) fail(frames[i] + ": is not of the first frame's size");
    const double side = crop(image, box, info.search_factor, info.search_size, pixels[0].bytes);
    check(fermt_track_frame(&step), frames[i]);
    const Box found = decode(maps, info.grid);
    const double x = box.x + 0.5 * box.w + (found.x - 0.5 * found.w - 0.5) * side;
    const double y = box.y + 0.5 * box.h + (found.y - 0.5 * found.h - 0.5) * side;
    box = clip({x, y, found.w * side, found.h * side}, image);
    if (!std::isfinite(box.x + box.y + box.w + box.h)) fail(frames[i] + ": the model's answer is not finite");
    std::printf("%.3f,%.3f,%.3f,%.3f,%.6f\n", box.x, box.y, box.w, box.h, *std::max_element(maps, maps + cells));
  }
}

}  // namespace

int main(int count, char** words) {
  try {
    if (count < 5) fail("usage: track model.fermt x,y,w,h frame0.ppm frame1.ppm ...");
    track(words[1], words[2], {words + 3, words + count});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "track: %s\n", error.what());
    return 1;
  }
}
