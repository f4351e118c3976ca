"""A voice agent on pipecat's own Twilio serializer and transport, without any model.

It plays the notes it is given to the caller, listens, and prints one JSON line per thing that
happened, so that a test can read what an agent of somebody else's makes of the gateway:

    {"event": "listening", "port": 40123}      the WebSocket server is up
    {"event": "started", "call": {...}}        pipecat has recognised the dialect
    {"event": "digit", "digit": "5"}           a key was pressed
    {"event": "mark", "name": "end"}           the gateway has played what came before the mark
    {"event": "ended", "samples": 16000}       the caller is gone; the audio is in --heard

Key 0 makes the bot play a long tone, key 1 interrupts it (pipecat sends "clear"), key # hangs up.
"""

import argparse
import asyncio
import json
import math
import struct
import wave

import uvicorn
from fastapi import FastAPI, WebSocket

from pipecat.frames.frames import (
    EndTaskFrame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionTaskFrame,
    OutputAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import (
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)

RATE_HZ = 8000


def tell(event, **values):
    print(json.dumps({"event": event, **values}), flush=True)


def tone(hz, milliseconds):
    count = RATE_HZ * milliseconds // 1000
    return b"".join(
        struct.pack("<h", round(8000 * math.sin(2 * math.pi * hz * n / RATE_HZ)))
        for n in range(count)
    )


class Ear(FrameProcessor):
    """Keeps what the caller says and acts on keys."""

    def __init__(self):
        super().__init__()
        self.heard = bytearray()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.heard += frame.audio
            return
        if isinstance(frame, InputDTMFFrame):
            await self.key(frame.button.value)
            return
        await self.push_frame(frame, direction)

    async def key(self, digit):
        tell("digit", digit=digit)
        if digit == "0":
            await self.say(tone(2200, 20_000))
        elif digit == "1":
            await self.push_frame(InterruptionTaskFrame(), FrameDirection.UPSTREAM)
        elif digit == "#":
            await self.push_frame(EndTaskFrame(), FrameDirection.UPSTREAM)

    async def say(self, audio):
        await self.push_frame(OutputAudioRawFrame(audio, RATE_HZ, 1))


async def converse(websocket, options):
    kind, call = await parse_telephony_websocket(websocket)
    tell("started", kind=kind, call=dict(call))
    serializer = TwilioFrameSerializer(
        stream_sid=call["stream_id"],
        call_sid=call["call_id"],
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket=websocket,
        params=FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            add_wav_header=False,
            serializer=serializer,
        ),
    )
    ear = Ear()
    params = PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ)
    task = PipelineTask(
        Pipeline([transport.input(), ear, transport.output()]), params=params
    )

    @transport.event_handler("on_client_connected")
    async def connected(_transport, _client):
        audio = b"".join(tone(hz, options.note_ms) for hz in options.notes)
        await task.queue_frame(OutputAudioRawFrame(audio, RATE_HZ, 1))

    @transport.event_handler("on_client_disconnected")
    async def disconnected(_transport, _client):
        await task.cancel()

    await PipelineRunner(handle_sigint=False).run(task)
    with wave.open(options.heard, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(bytes(ear.heard))
    tell("ended", samples=len(ear.heard) // 2)


class Server(uvicorn.Server):
    """Says which port it got."""

    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        for server in self.servers:
            for socket in server.sockets:
                tell("listening", port=socket.getsockname()[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heard", required=True, help="WAV file for what the caller said")
    parser.add_argument("--notes", default="600,1200", help="notes to play, Hz")
    parser.add_argument("--note-ms", type=int, default=500, help="length of a note")
    options = parser.parse_args()
    options.notes = [int(hz) for hz in options.notes.split(",")]

    app = FastAPI()

    @app.websocket("/agent")
    async def agent(websocket: WebSocket):
        await websocket.accept()
        await converse(websocket, options)

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    asyncio.run(Server(config).serve())


main()
