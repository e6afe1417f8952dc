// segment MODEL.tflite PHOTO.ppm MASK.pgm: the class id of every pixel of a photo, as a gray picture.
//
// Binary PPM in and PGM out, so that no picture library is needed: a camera gives such pixels anyway.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <limits>

#include "segmenter.hpp"

namespace {

// The next number of a PPM's header, past white space and comments.
int read_number(std::istream& file) {
  while ((file >> std::ws) && file.peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  int number = 0;
  file >> number;
  return number;
}

std::vector<uint8_t> read_ppm(const std::string& path, int* height, int* width) {
  std::ifstream file(path, std::ios::binary);
  char magic[2] = {};
  file.read(magic, 2);
  *width = read_number(file);
  *height = read_number(file);
  const int largest = read_number(file);
  file.get();
  if (!file || magic[0] != 'P' || magic[1] != '6' || largest != 255 || *width < 1 || *height < 1 ||
      *width > 32768 || *height > 32768)
    throw std::runtime_error(path + ": expected a binary PPM (P6) of 8 bits");
  std::vector<uint8_t> pixels(static_cast<size_t>(*height) * *width * 3);
  if (!file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size())))
    throw std::runtime_error(path + ": ends early");
  return pixels;
}

void write_pgm(const std::string& path, const segformer::Mask& mask) {
  const std::string part = path + ".part";
  std::ofstream file(part, std::ios::binary);
  file << "P5\n" << mask.width << " " << mask.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(mask.ids.data()), static_cast<std::streamsize>(mask.ids.size()));
  file.close();
  if (!file || std::rename(part.c_str(), path.c_str()) != 0) {
    std::remove(part.c_str());
    throw std::runtime_error(path + ": cannot be written");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: segment MODEL.tflite PHOTO.ppm MASK.pgm\n";
    return 2;
  }
  try {
    int height = 0, width = 0;
    const std::vector<uint8_t> photo = read_ppm(argv[2], &height, &width);
    segformer::Segmenter segmenter(argv[1]);
    write_pgm(argv[3], segmenter(photo.data(), height, width));
  } catch (const std::exception& error) {
    std::cerr << "segment: " << error.what() << "\n";
    return 1;
  }
}
