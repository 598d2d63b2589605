"""The block-causal predictor of V-JEPA 2-AC: tokens attend to the same and earlier steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from jepa_mpc.encoders.layers.blocks import RotaryBlock
from jepa_mpc.encoders.layers.normed import LatentNorm
from jepa_mpc.encoders.layers.positions import Angles, AxialRotary, grid_places
from jepa_mpc.shapes import check_shape
from jepa_mpc.types import Actions, Imagined, Latents, Plans
from jepa_mpc.world_model.parts.poses import POSE_DIM, GivenPose, PoseReader
from jepa_mpc.world_model.parts.predictors.remembering import Remembering
from jepa_mpc.world_model.parts.predictors.trunk import frame_causal_mask

CAMERA_DIM = 6


@dataclass(frozen=True, kw_only=True)
class BlockCausalSizes:
    """Sizes of a block-causal predictor.

    Args:
        state_dim: Width D of the latents.
        rows: Rows of patches in one frame.
        columns: Columns of patches in one frame.
        width: Width of the tokens inside.
        depth: Number of blocks.
        heads: Attention heads; a head needs at least 12 channels.
        mlp_dim: Width inside the feed-forward parts.
        cameras: Whether each step also has a token for the camera pose.
        window: Maximum number of context frames of a plan.
        eps: Constant of the layer norms.
        qkv_bias: Whether queries, keys and values have a bias.
    """

    state_dim: int
    rows: int
    columns: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    cameras: bool = False
    window: int = 1
    eps: float = 1e-6
    qkv_bias: bool = True


class BlockCausalPredictor(nn.Module):
    """Predicts each next frame's patches from the patches, poses and motions so far.

        step i:      [motion_i, pose_i, (camera_i), patch_i,1 ... patch_i,N]     attend to each other and all earlier
        steps
        next patches = normalise(W norm(blocks(...)) on the patches of step i)

    Rotary positions are those of the absolute step, so keys and values of a rollout can be cached exactly; the tokens
    of motion, pose and camera are rotated by time only.

    Args:
        sizes: All sizes.
        reader: Reads poses from proprioception and motions from actions; by default both are used unchanged.
        motion_map: Standardises motions `(..., 7)` before they are embedded; by default none.
        pose_map: Standardises poses; by default none.
        normalise: Normalises predictions before they are compared or fed back; by default a layer norm without weights,
            which the input latents must have passed, too.

    Raises:
        ValueError: If the heads are too narrow for the rotary positions.

    Reference: Assran et al. 2025, arXiv:2506.09985, section 3.
    """

    def __init__(
        self,
        sizes: BlockCausalSizes,
        *,
        reader: PoseReader | None = None,
        motion_map: nn.Module | None = None,
        pose_map: nn.Module | None = None,
        normalise: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if sizes.width % sizes.heads or sizes.width // sizes.heads < 12:
            raise ValueError(
                f"{sizes.heads} heads must divide the width and leave 12 channels each, got a width of {sizes.width}"
            )
        self.sizes = sizes
        self.patches = nn.Linear(sizes.state_dim, sizes.width)
        self.motion = nn.Linear(POSE_DIM, sizes.width)
        self.pose = nn.Linear(POSE_DIM, sizes.width)
        self.camera = nn.Linear(CAMERA_DIM, sizes.width) if sizes.cameras else None
        self.blocks: Sequence[RotaryBlock] = nn.ModuleList(  # type: ignore[assignment]
            RotaryBlock(sizes.width, heads=sizes.heads, hidden=sizes.mlp_dim, eps=sizes.eps, qkv_bias=sizes.qkv_bias)
            for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.output = nn.Linear(sizes.width, sizes.state_dim)
        self.proprio: PoseReader = reader or GivenPose()
        self.motion_map, self.pose_map = motion_map or nn.Identity(), pose_map or nn.Identity()
        self.normalise = normalise or LatentNorm()
        self.rotary = AxialRotary(sizes.width // sizes.heads, pairing="tiled")
        self.draw(None)

    @property
    def window(self) -> int:
        """Maximum number of context frames of a plan."""
        return self.sizes.window

    @property
    def num_patches(self) -> int:
        """Patches of one frame N."""
        return self.sizes.rows * self.sizes.columns

    @property
    def num_leading(self) -> int:
        """Tokens of a step before its patches: motion, pose, and possibly the camera."""
        return 2 + int(self.camera is not None)

    def draw(self, generator: Generator | None) -> None:
        """Initialise the weights: truncated normal with std 0.02, last maps of block i smaller by sqrt(2 i)."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02, generator=generator)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        with torch.no_grad():
            for number, block in enumerate(self.blocks, start=1):
                for part in (block.attention.output, block.mlp.down):
                    assert isinstance(part, nn.Linear)
                    part.weight.div_((2 * number) ** 0.5)

    def forward(self, latents: Latents, actions: Actions, proprio: Annotated[Tensor, "B T P"] | None = None) -> Latents:
        """T latents, the T actions after them and T proprioceptions in, the T next latents out."""
        return self.predict(latents, actions, proprio)[0]

    def predict(
        self,
        latents: Latents,
        actions: Actions,
        proprio: Annotated[Tensor, "B T P"] | None = None,
        *,
        cameras: Annotated[Tensor, "B T 6"] | None = None,
    ) -> tuple[Latents, None]:
        """As `forward`; poses are integrated, not predicted, so the second entry is None.

        Args:
            latents: `(B, T, N, D)`, normalised.
            actions: `(B, T, 7)`.
            proprio: `(B, T, P)`.
            cameras: Positions and Euler angles of the camera in the base frame `(B, T, 6)`, if the predictor takes
                them.

        Raises:
            ValueError: If shapes do not fit, the number of patches differs, or poses or cameras are missing.
        """
        sizes = check_shape(latents, "B T N D", D=self.sizes.state_dim)
        check_shape(actions, "B T A", B=sizes["B"], T=sizes["T"], A=POSE_DIM)
        poses = self.read(proprio)
        check_shape(poses, "B T P", B=sizes["B"], T=sizes["T"])
        tokens = self.tokens(self.embed(latents), self.proprio.motion(actions), poses, cameras)
        steps, width = tokens.shape[1:3]
        mask = frame_causal_mask(steps, width, window=steps, device=tokens.device)
        angles = self.angles(0, steps, device=tokens.device)
        x = tokens.flatten(1, 2)
        for block in self.blocks:
            x = block(x, angles, mask)
        return self.finish(x.unflatten(1, (steps, width)), latents), None

    def rollout(
        self,
        latents: Latents,
        actions: Annotated[Tensor, "B T-1 A"],
        plans: Plans,
        proprio: Annotated[Tensor, "B T P"] | None = None,
    ) -> tuple[Imagined, Annotated[Tensor, "B S H 7"]]:
        """Roll out plans: predictions are fed back, poses are integrated.

        Args:
            latents: Context `(B, T, N, D)`, normalised.
            actions: The T - 1 actions between its frames.
            plans: `(B, S, H, 7)`.
            proprio: `(B, T, P)`.

        Returns:
            Latents `(B, S, H, N, D)` and poses `(B, S, H, 7)`.

        Raises:
            ValueError: If shapes do not fit, the number of patches differs, or poses are missing.
        """
        sizes = check_shape(latents, "B T N D", D=self.sizes.state_dim)
        plan_sizes = check_shape(plans, "B S H A", B=sizes["B"], A=POSE_DIM)
        check_shape(actions, "B T A", B=sizes["B"], T=sizes["T"] - 1, A=POSE_DIM)
        poses = self.read(proprio)
        check_shape(poses, "B T P", B=sizes["B"], T=sizes["T"])
        motions = self.proprio.motion(plans)
        course = Remembering(self, latents, self.proprio.motion(actions), poses, candidates=plan_sizes["S"])
        steps = [course.step(motions[:, :, h], last=h == plan_sizes["H"] - 1) for h in range(plan_sizes["H"])]
        return torch.stack([state for state, _ in steps], dim=2), torch.stack([pose for _, pose in steps], dim=2)

    def bytes_per_candidate(self, num_tokens: int, horizon: int) -> int:
        """Approximate memory in bytes of a rollout for one candidate of one world, without gradients.

        Keys and values of all steps and blocks, those of one block concatenated, the stream and the widest layer of one
        step, and the output.
        """
        sizes, tokens = self.sizes, num_tokens + self.num_leading
        frames = self.window - 1 + horizon
        kept = 2 * sizes.depth * max(horizon - 1, 0) * tokens * sizes.width
        joined = 2 * frames * tokens * sizes.width
        inner = tokens * (8 * sizes.width + 2 * sizes.mlp_dim)
        returned = 2 * (horizon + 1) * num_tokens * sizes.state_dim
        return self.patches.weight.element_size() * (kept + joined + inner + returned)

    def read(self, proprio: Tensor | None) -> Annotated[Tensor, "B T 7"]:
        """The poses in the proprioception.

        Raises:
            ValueError: If there is none, or its width does not fit the reader.
        """
        if proprio is None:
            raise ValueError("this predictor needs the pose of the hand at every frame, and no proprioception came")
        return self.proprio(proprio)

    def embed(self, latents: Annotated[Tensor, "... N D"]) -> Annotated[Tensor, "... N W"]:
        """Patches at the width of the predictor.

        Raises:
            ValueError: If the number of patches per frame is not that of this predictor's grid.
        """
        if latents.shape[-2] != self.num_patches:
            raise ValueError(
                f"expected {self.sizes.rows} x {self.sizes.columns} = {self.num_patches} patches per frame, "
                f"got {latents.shape[-2]}: encode frames of the size it was trained with"
            )
        return self.patches(latents.to(self.patches.weight.dtype))

    def tokens(
        self, patches: Annotated[Tensor, "G T N W"], motions: Tensor, poses: Tensor, cameras: Tensor | None = None
    ) -> Annotated[Tensor, "G T M W"]:
        """All tokens of each step, in the order motion, pose, camera, patches.

        Raises:
            ValueError: If cameras are missing or not expected.
        """
        if (cameras is None) != (self.camera is None):
            known = (
                "takes no place of a camera" if self.camera is None else "needs the place of the camera at each step"
            )
            raise ValueError(f"this predictor {known}")
        dtype = patches.dtype
        leading = [self.motion(self.motion_map(motions).to(dtype)), self.pose(self.pose_map(poses).to(dtype))]
        if self.camera is not None and cameras is not None:
            leading.append(self.camera(cameras.to(dtype)))
        return torch.cat([torch.stack(leading, dim=2), patches], dim=2)

    def angles(self, first: int, steps: int, *, device: torch.device) -> Angles:
        """Rotation angles of the tokens of `steps` steps from index `first`."""
        places = grid_places(1, self.sizes.rows, self.sizes.columns, device=device)
        places = places * places.new_tensor([1.0, 1.0, self.sizes.rows / self.sizes.columns])
        places = torch.cat([places.new_zeros(self.num_leading, 3), places])
        times = torch.arange(first, first + steps, device=device, dtype=places.dtype)
        shift = times[:, None, None] * places.new_tensor([1.0, 0.0, 0.0])
        return self.rotary.table((places + shift).flatten(0, 1))

    def finish(
        self, x: Annotated[Tensor, "G T M W"], before: Annotated[Tensor, "G T N D"]
    ) -> Annotated[Tensor, "G T N D"]:
        """From the output of the last block to the next latents; `before` are the input latents."""
        return self.normalise(self._told(x))

    def _told(self, x: Annotated[Tensor, "G T M W"]) -> Annotated[Tensor, "G T N D"]:
        return self.output(self.norm(x[..., self.num_leading :, :]))


class ChangePredictor(BlockCausalPredictor):
    """Predicts the change of each patch instead, so that static content need not be learned.

        next patches = normalise(patches + W norm(blocks(...)))      W starts at zero: no motion

    Ours, for short trainings; the published predictor first has to learn the identity.
    """

    def draw(self, generator: Generator | None) -> None:
        """As the parent, except for the last map."""
        super().draw(generator)
        nn.init.zeros_(self.output.weight)

    def finish(
        self, x: Annotated[Tensor, "G T M W"], before: Annotated[Tensor, "G T N D"]
    ) -> Annotated[Tensor, "G T N D"]:
        """The input latents plus their change."""
        return self.normalise(before + self._told(x))
