/* Asks an exported certifier for certificates, with no Python anywhere.
 *
 *   ask MODEL INPUTS SEED DECISION NUM_SAMPLES VOTES inputs.bin seeds.bin SIZE...
 *
 * MODEL is the SavedModel's folder. The next five arguments are the tensors of
 * its `seeded` signature, such as "seeded_inputs:0". They are listed in
 * saved_model.pb, which takes protocol buffers to read:
 * docs/reference/serving.md shows how.
 * inputs.bin holds float32, seeds.bin int32, two a row, both little-endian.
 * SIZE... is the shape of one input: 28 28 1 for an MNIST image.
 *
 * Prints a line per row: the decision, the number of samples, each class's votes.
 * Exits with TensorFlow's code if it reports an error (3 is INVALID_ARGUMENT),
 * with 64 if the arguments or files are no use.
 */
#include <stdio.h>
#include <stdlib.h>
#include <tensorflow/c/c_api.h>

static TF_Status *status;
static TF_Graph *graph;

static void check(void) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s\n", TF_Message(status));
  exit(TF_GetCode(status));
}

static void give_up(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(64);
}

/* The tensor of a name like "op:0": C knows operations and output indices. */
static TF_Output find(const char *name) {
  char operation[256];
  TF_Output tensor = {NULL, 0};
  if (sscanf(name, "%255[^:]:%d", operation, &tensor.index) != 2)
    give_up(name, "not of the form operation:index");
  tensor.oper = TF_GraphOperationByName(graph, operation);
  if (!tensor.oper) give_up(name, "not in the model");
  return tensor;
}

/* A file as rows of the shape in dims[1...]: its size says how many rows. The
 * tensor owns its memory, so the file is read right into it. */
static TF_Tensor *read_rows(const char *path, TF_DataType type, int64_t *dims,
                            int num_dims) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) give_up(path, "cannot be read");
  size_t bytes = ftell(file), row = TF_DataTypeSize(type);
  for (int i = 1; i < num_dims; i++) row *= dims[i];
  if (row == 0 || bytes % row) give_up(path, "holds no whole number of rows");
  dims[0] = bytes / row;
  TF_Tensor *tensor = TF_AllocateTensor(type, dims, num_dims, bytes);
  rewind(file);
  if (fread(TF_TensorData(tensor), 1, bytes, file) != bytes)
    give_up(path, "cannot be read");
  fclose(file);
  return tensor;
}

int main(int argc, char **argv) {
  enum { MAX_DIMS = 8 };
  int num_dims = argc - 8; /* The sizes of an input, and its rows. */
  if (num_dims < 2 || num_dims > MAX_DIMS)
    give_up("usage", "ask MODEL INPUTS SEED DECISION NUM_SAMPLES VOTES inputs.bin "
                     "seeds.bin SIZE...");
  status = TF_NewStatus();
  graph = TF_NewGraph();
  const char *tags[] = {"serve"};
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1,
                                                     graph, NULL, status);
  check();

  int64_t input_dims[MAX_DIMS] = {0}, seed_dims[2] = {0, 2};
  for (int i = 1; i < num_dims; i++) input_dims[i] = atoll(argv[8 + i]);
  TF_Output feeds[] = {find(argv[2]), find(argv[3])};
  TF_Output fetches[] = {find(argv[4]), find(argv[5]), find(argv[6])};
  TF_Tensor *given[] = {read_rows(argv[7], TF_FLOAT, input_dims, num_dims),
                        read_rows(argv[8], TF_INT32, seed_dims, 2)};
  TF_Tensor *found[3];
  TF_SessionRun(session, NULL, feeds, given, 2, fetches, found, 3, NULL, 0, NULL,
                status);
  check();

  const int32_t *decision = TF_TensorData(found[0]);
  const int32_t *num_samples = TF_TensorData(found[1]);
  const int32_t *votes = TF_TensorData(found[2]);
  int64_t rows = TF_Dim(found[2], 0), classes = TF_Dim(found[2], 1);
  for (int64_t i = 0; i < rows; i++) {
    printf("%d %d", decision[i], num_samples[i]);
    for (int64_t c = 0; c < classes; c++) printf(" %d", votes[i * classes + c]);
    printf("\n");
  }
  return 0; /* The end of the process frees everything. */
}
