import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * The fold of bench/fold.md by Kafka Streams, exactly once.
 *
 * <p>Arguments: bootstrap servers, application id, input topic, file of articles, memory|rocksdb, threads, commit
 * interval in ms, state directory. The state is kept as the bytes that go to the changelog, so that no serde stands
 * between the fold and the store.
 */
public final class KafkaStreamsFold {
  private static final int DIMS = 96;
  private static final int HEAD = 32;
  private static final double HALF_LIFE_MS = 2 * 3_600_000.0;
  private static final String STORE = "states";
  private static final AtomicBoolean FIRST = new AtomicBoolean(true);

  private static final Map<String, float[]> ARTICLES = new HashMap<>();

  private static final class Fold implements Processor<Bytes, byte[], Void, Void> {
    private final JsonFactory json = new JsonFactory();
    private final float[] sum = new float[DIMS];
    private ProcessorContext<Void, Void> context;
    private KeyValueStore<Bytes, byte[]> store;

    @Override
    public void init(ProcessorContext<Void, Void> context) {
      this.context = context;
      this.store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<Bytes, byte[]> record) {
      if (FIRST.compareAndSet(true, false)) {
        System.out.printf("FIRST %.3f%n", System.currentTimeMillis() / 1000.0);
      }
      long eventAt = 0;
      float[] article = null;
      try (JsonParser parser = json.createParser(record.value())) {
        parser.nextToken();
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
          String name = parser.currentName();
          parser.nextToken();
          if (name.equals("at")) {
            eventAt = parser.getLongValue();
          } else if (name.equals("article_id")) {
            article = ARTICLES.get(parser.getText());
          }
        }
      } catch (java.io.IOException error) {
        throw new java.io.UncheckedIOException(error);
      }
      RecordMetadata metadata = context.recordMetadata().orElseThrow();
      byte[] before = store.get(record.key());
      ByteBuffer after = ByteBuffer.allocate(HEAD + 4 * DIMS).order(ByteOrder.LITTLE_ENDIAN);
      FloatBuffer sums = after.slice(HEAD, 4 * DIMS).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
      long at = eventAt;
      long folded = 1;
      long hashSum = splitmix64((long) metadata.partition() << 48 ^ metadata.offset());
      if (before == null) {
        sums.put(0, article);
      } else {
        ByteBuffer old = ByteBuffer.wrap(before).order(ByteOrder.LITTLE_ENDIAN);
        long oldAt = old.getLong(0);
        at = Math.max(oldAt, eventAt);
        folded += old.getLong(8);
        hashSum += old.getLong(16);
        float kept = oldAt == at ? 1f : (float) Math.pow(2, (oldAt - at) / HALF_LIFE_MS);
        float added = eventAt == at ? 1f : (float) Math.pow(2, (eventAt - at) / HALF_LIFE_MS);
        old.slice(HEAD, 4 * DIMS).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(0, sum);
        for (int i = 0; i < DIMS; i++) {
          sum[i] = sum[i] * kept + article[i] * added;
        }
        sums.put(0, sum);
      }
      after.putLong(0, at).putLong(8, folded).putLong(16, hashSum).putLong(24, metadata.offset());
      store.put(record.key(), after.array());
    }
  }

  private static long splitmix64(long value) {
    long z = value + 0x9E3779B97F4A7C15L;
    z = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
    z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
    return z ^ z >>> 31;
  }

  private static void readArticles(Path path) throws java.io.IOException {
    FloatBuffer numbers =
        ByteBuffer.wrap(Files.readAllBytes(path)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    for (int number = 0; number < numbers.limit() / DIMS; number++) {
      float[] vector = new float[DIMS];
      numbers.get(number * DIMS, vector);
      ARTICLES.put(String.format("article-%05d", number), vector);
    }
  }

  private static final class Restored implements StateRestoreListener {
    private final AtomicLong began = new AtomicLong();
    private final AtomicLong records = new AtomicLong();
    private final java.util.concurrent.atomic.AtomicInteger open = new java.util.concurrent.atomic.AtomicInteger();

    @Override
    public void onRestoreStart(TopicPartition partition, String store, long from, long to) {
      began.compareAndSet(0, System.nanoTime());
      open.incrementAndGet();
    }

    @Override
    public void onBatchRestored(TopicPartition partition, String store, long end, long count) {}

    @Override
    public void onRestoreEnd(TopicPartition partition, String store, long total) {
      long all = records.addAndGet(total);
      if (open.decrementAndGet() == 0) {
        System.out.printf("RESTORED %d %.3f%n", all, (System.nanoTime() - began.get()) / 1e9);
      }
    }
  }

  public static void main(String[] args) throws Exception {
    readArticles(Path.of(args[3]));
    KeyValueBytesStoreSupplier kind =
        args[4].equals("memory") ? Stores.inMemoryKeyValueStore(STORE) : Stores.persistentKeyValueStore(STORE);
    StoreBuilder<KeyValueStore<Bytes, byte[]>> store =
        Stores.keyValueStoreBuilder(kind, Serdes.Bytes(), Serdes.ByteArray())
            .withCachingEnabled()
            .withLoggingEnabled(Map.of("segment.ms", "3600000", "min.cleanable.dirty.ratio", "0.5"));
    Topology topology = new Topology();
    topology.addSource("clicks", Serdes.Bytes().deserializer(), Serdes.ByteArray().deserializer(), args[2]);
    topology.addProcessor("fold", Fold::new, "clicks");
    topology.addStateStore(store, "fold");

    Properties settings = new Properties();
    settings.put("bootstrap.servers", args[0]);
    settings.put("application.id", args[1]);
    settings.put("processing.guarantee", "exactly_once_v2");
    settings.put("num.stream.threads", args[5]);
    settings.put("commit.interval.ms", args[6]);
    settings.put("state.dir", args[7]);
    settings.put("replication.factor", "1");
    settings.put("statestore.cache.max.bytes", Long.toString(128L << 20));
    settings.put("buffered.records.per.partition", "5000");
    settings.put("auto.offset.reset", "earliest");
    settings.put("consumer.max.poll.records", "5000");
    settings.put("consumer.max.partition.fetch.bytes", Integer.toString(8 << 20));
    settings.put("consumer.session.timeout.ms", "6000");
    settings.put("restore.consumer.max.poll.records", "10000");
    settings.put("restore.consumer.max.partition.fetch.bytes", Integer.toString(8 << 20));
    settings.put("producer.linger.ms", "5");
    settings.put("producer.batch.size", Integer.toString(512 << 10));

    KafkaStreams streams = new KafkaStreams(topology, settings);
    CountDownLatch ended = new CountDownLatch(1);
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          Runtime.getRuntime().halt(1);
          return StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
        });
    streams.setGlobalStateRestoreListener(new Restored());
    streams.setStateListener(
        (now, before) -> {
          if (now == KafkaStreams.State.RUNNING) {
            System.out.println("RUNNING");
          }
        });
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  streams.close(Duration.ofSeconds(10));
                  ended.countDown();
                }));
    streams.start();
    ended.await();
  }
}
