# The binary alone on a base without a shell; the embedded demo model is in it. docs/serving.md shows its use.
FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p rustorch-cli && mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/rustorch /usr/local/bin/rustorch
COPY --from=build --chown=nonroot:nonroot /data /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/rustorch"]
CMD ["serve", "--host", "0.0.0.0", "--data-dir", "/data"]
